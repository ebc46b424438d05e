"""The files of a client's build: its Dockerfile, its context, further contexts by name.

Directories are the client's own, called by a name; remote ones are fetched by the builder as for anybody else. The ignore
patterns are the Dockerfile's own, else the context's (FEATURES A-84), and go along with the question for the files, so
what is ignored is not even sent. Of the context only what steps use is asked for, which is known once the Dockerfile is
lowered (A-94).
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from builder.context import check_sent
from builder.control.attributes import named_contexts
from builder.control.contexts import kept_directory
from builder.control.filesync import PATH, Receiver, metadata, receive_files
from builder.control.layouts import ClientLayout
from builder.control.sessions import Session
from registry_client.values import frozen
from runtime.cancel import Cancel
from runtime.errors import InvalidInput, NotFound, Unavailable, Unsupported
from runtime.events import Emit, Finished, Outcome, Progress, Started
from runtime.grpc.status import GrpcError

_DOCKERFILE = "Dockerfile"
_UPLOAD = "http://buildkit-session/"
_LINKS = 40  # as many as the kernel follows


@frozen(kw_only=True)
class Sources:
    """`context` is a directory here, a URL, or `-` for the archive `upload`. `dockerfile` is a name and a text."""

    context: str
    dockerfile: tuple[str, bytes] | None
    ignore: bytes | None = None
    contexts: Mapping[str, str]
    upload: str = ""  # which of the client's uploads is the context


@frozen
class _Wanted:
    """A context that is not here yet: the client's name, its place here, what it ignores."""

    key: str
    root: str
    ignore: bytes


class Sent:
    """Brings what a client has here. Directories stay ours until `stack` is closed."""

    def __init__(
        self, session: Session, root: str, node: str, emit: Emit, cancel: Cancel, stack: ExitStack
    ) -> None:
        self._session, self._root, self._node = session, root, node
        self._emit, self._cancel, self._stack = emit, cancel, stack
        self._wanted: _Wanted | None = None

    def dockerfile(self, attrs: Mapping[str, str]) -> Sources:
        """The Dockerfile and what it ignores; no other file yet."""
        if zero := [name for name, value in attrs.items() if "\0" in value]:
            raise InvalidInput(f"a NUL byte in {zero[0]}")
        context = attrs.get("context", "")
        is_remote = bool(context)
        key = attrs.get("dockerfilekey", "" if is_remote else "dockerfile")
        upload = context.removeprefix(_UPLOAD) if context.startswith(_UPLOAD) else ""
        if context and not upload:
            check_sent(context)
        if not key:
            return Sources(context="-" if upload else context, dockerfile=None, contexts={}, upload=upload)
        name = attrs.get("filename") or _DOCKERFILE
        with self._told("dockerfile", f"[internal] load build definition from {posixpath.basename(name)}"):
            text, ignore = self._definition(key, name)
        if ignore is None and not is_remote:
            with self._told("ignore", "[internal] load .dockerignore"):
                ignore = self._ignored(attrs.get("contextkey", "context"))
        return Sources(
            context="-" if upload else context,
            dockerfile=(name, text),
            ignore=ignore or b"",
            contexts={},
            upload=upload,
        )

    def all_but_context(self, attrs: Mapping[str, str], inputs: Mapping[str, str]) -> Sources:
        """Everything that is known to be wanted. `inputs` says what `input:NAME` stands for."""
        found = self.dockerfile(attrs)
        contexts = {}
        for name, value in named_contexts(attrs).items():
            contexts[name] = self._named(name, value, inputs)
        context = found.context
        if not context:
            context = self._kept(key := attrs.get("contextkey", "context"))
            self._wanted = _Wanted(key, context, found.ignore or b"")
        subdirectory = attrs.get("contextsubdir", "").strip("/")
        if subdirectory:
            self.fetch_context(None)
            context = self._below(context, subdirectory)
        return Sources(
            context=context,
            dockerfile=found.dockerfile,
            ignore=found.ignore,
            contexts=contexts,
            upload=found.upload,
        )

    @staticmethod
    def _below(context: str, subdirectory: str) -> str:
        path = os.path.realpath(os.path.join(context, subdirectory))
        if not path.startswith(os.path.realpath(context) + "/") or not os.path.isdir(path):
            raise NotFound(f"no directory {subdirectory} in the context")
        return path

    # --- single files -------------------------------------------------------------------------------------------------

    def _definition(self, key: str, name: str) -> tuple[bytes, bytes | None]:
        wanted = [name, f"{name}.dockerignore"]
        if posixpath.basename(name) == _DOCKERFILE:
            wanted.append(name.removesuffix(_DOCKERFILE) + _DOCKERFILE.lower())
        found = self._files(key, wanted)
        for each in (wanted[0], *wanted[2:]):
            text = _content(found, each)
            if text is not None:
                return text, _content(found, wanted[1])
        raise NotFound(f"failed to read dockerfile: open {name}: no such file or directory")

    def _ignored(self, key: str) -> bytes | None:
        return _content(self._files(key, [".dockerignore"]), ".dockerignore")

    def _files(self, key: str, names: list[str]) -> dict[str, bytes | str]:
        given = metadata(key, follow=names)
        with self._asking(key), self._session.stream(PATH, given, self._cancel) as stream:
            return receive_files(stream)

    def fetch_context(self, paths: Iterable[str] | None) -> None:
        """Bring what is wanted of the context here, once it is known; None is all of it."""
        wanted, self._wanted = self._wanted, None
        paths = None if paths is None else sorted(set(paths))
        if wanted is None or paths == []:
            return
        with self._told("context", "[internal] load build context") as node:
            try:
                self._receive(
                    wanted.key, wanted.root, wanted.ignore, node, None if paths and "" in paths else paths
                )
            except BaseException:
                self._wanted = wanted  # it is not here
                raise

    # --- directories --------------------------------------------------------------------------------------------------

    def _named(self, name: str, value: str, inputs: Mapping[str, str]) -> str:
        kind, _, rest = value.partition(":")
        if kind == "local":
            with self._told(f"context {name}", f"[context {name}] load from client") as node:
                return self._directory(rest, self._ignored(rest) or b"", node)
        if kind == "input":
            if rest not in inputs:
                raise Unsupported(f"build context {name}: {value} is no result of a build here")
            return inputs[rest]
        if kind == "oci-layout":
            with self._told(f"context {name}", f"[context {name}] load layout from client"):
                return self._layout(name, rest.removeprefix("//"))
        return value if kind == "docker-image" else check_sent(value)

    def _layout(self, name: str, text: str) -> str:
        """`STORE:TAG@DIGEST` of the client as a layout of ours."""
        place, _, digest = text.partition("@")
        if not digest:
            raise InvalidInput(f"build context {name}: oci-layout://{text} has no digest")
        root = self._stack.enter_context(kept_directory(self._root, "", lasting=False))
        ClientLayout(self._session, f"oci:{place.partition(':')[0]}", self._cancel).fetch(digest, root)
        return f"oci-layout://{root}@{digest}"

    def _directory(self, key: str, ignore: bytes, node: str) -> str:
        """The client's directory of that name, as it is now."""
        root = self._kept(key)
        self._receive(key, root, ignore, node, None)
        return root

    def _kept(self, key: str) -> str:
        """Where the client's directory of that name lies here, as it was sent last."""
        shared = self._session.shared_key
        name = f"{shared}:{key}" if shared else ""
        return self._stack.enter_context(kept_directory(self._root, name, lasting=bool(shared)))

    def _receive(self, key: str, root: str, ignore: bytes, node: str, paths: list[str] | None) -> None:
        def told(size: int) -> None:
            self._emit(Progress(node=node, item="transferring context:", current=size))

        given = metadata(key, exclude=_patterns(ignore), follow=paths or ())
        with self._asking(key), self._session.stream(PATH, given, self._cancel) as stream:
            Receiver(stream, root, told).run()

    @contextmanager
    def _asking(self, key: str) -> Iterator[None]:
        if not self._session.offers(PATH):
            raise InvalidInput("the client has no local files for this build")
        try:
            yield
        except GrpcError as error:
            self._cancel.check()
            raise Unavailable(f"the client does not send {key!r}: {error.message}") from None

    @contextmanager
    def _told(self, what: str, name: str) -> Iterator[str]:
        node = f"{self._node}/{what}"
        self._emit(Started(node=node, name=name, parent=self._node))
        try:
            yield node
        except BaseException as error:
            self._emit(Finished(node=node, outcome=Outcome.ERROR, error=str(error)))
            raise
        self._emit(Finished(node=node, outcome=Outcome.DONE))


def _content(found: Mapping[str, bytes | str], name: str) -> bytes | None:
    """A file among those that were sent, through links; None when it is not there."""
    for _ in range(_LINKS):
        content = found.get(name)
        if not isinstance(content, str):
            return content
        name = posixpath.normpath(posixpath.join(posixpath.dirname(name), content)).lstrip("/")
    return None


def _patterns(ignore: bytes) -> list[str]:
    """The patterns as BuildKit's own reader would hand them on."""
    from builder.ignore import Patterns

    parsed = Patterns.parse(ignore.decode("utf-8", "surrogateescape"))
    return [f"{'!' * each.reinclude}{each.text}" for each in parsed.patterns]
