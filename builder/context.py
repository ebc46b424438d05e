"""Where the files and the Dockerfile of a build come from: a directory, standard input, git or http (A-93, A-84).

Everything ends as a directory with its ignore patterns. What was downloaded or read from standard input is unpacked
into the build's scratch directory, with the same care as any foreign archive.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO

from builder.operations.selection import Ignoring, Tree
from builder.request import BuildRequest
from registry_client.values import frozen, replace
from runtime.errors import InvalidInput, NotFound

DOCKERFILE_LIMIT = 16 << 20
IGNORE_LIMIT = 4 << 20
IGNORE_FILE = ".dockerignore"


@frozen
class Context:
    """`name` is what people call the Dockerfile; `lasting` is False for a directory that goes with the build."""

    tree: Tree
    text: bytes
    name: str
    lasting: bool = True
    time: int | None = None  # of a commit, or as a server says: seconds since 1970


class ContextOpener:
    """Opens the context of one build. `fetch` brings a remote to a directory, `fetch_file` the file of a URL;
    `new_directory` makes one in the scratch."""

    def __init__(
        self,
        request: BuildRequest,
        stdin: BinaryIO | None,
        new_directory: Callable[[], str],
        fetch: Callable[[str], tuple[str, int | None]],
        fetch_file: Callable[[str], str],
    ) -> None:
        self._request, self._stdin = request, stdin
        self._new_directory, self._fetch, self._fetch_file = new_directory, fetch, fetch_file

    def open(self) -> Context:
        context = self._request.context
        if context == "-":
            return self._from_stdin()
        if is_remote(context):
            return self._from_remote(context)
        return self._from_directory(context)

    # --- a directory ----------------------------------------------------------------------------------------------

    def _from_directory(self, path: str) -> Context:
        check_directory(path)
        directory = os.path.realpath(path)
        given = self._given_text()
        if given is not None:
            text, name = given
            return Context(Tree(directory, ignore=self._ignoring(directory)), text, name)
        place, name = self._find_dockerfile(directory)
        text = read_limited(place, DOCKERFILE_LIMIT)
        return Context(Tree(directory, ignore=read_ignore(directory, place)), text, name)

    def _ignoring(self, directory: str) -> Ignoring | None:
        given = self._request.ignore_text
        return read_ignore(directory, "") if given is None else parse_ignore(given)

    def _find_dockerfile(self, directory: str) -> tuple[str, str]:
        wanted = self._request.dockerfile
        if wanted is None:
            for name in ("Dockerfile", "dockerfile"):
                place = os.path.join(directory, name)
                if os.path.isfile(place):
                    return place, _shown(place)
            raise NotFound(f"no Dockerfile in {self._request.context}", hint="name another file with -f")
        # Relative to where we are, as every other path on a command line; else to the context.
        for place in (wanted, os.path.join(directory, wanted)):
            if os.path.isfile(place):
                return place, _shown(place)
        if os.path.isdir(wanted):
            raise InvalidInput(f"{wanted} is a directory", hint="-f names the Dockerfile itself")
        raise NotFound(
            f"no Dockerfile at {wanted}", hint="the path of -f is relative to the working directory"
        )

    def _given_text(self) -> tuple[bytes, str] | None:
        if self._request.dockerfile_text is not None:
            return self._request.dockerfile_text, self._request.dockerfile or "Dockerfile"
        if self._request.dockerfile == "-":
            return self._read_stdin().read(DOCKERFILE_LIMIT), "-"
        if (url := self._request.dockerfile or "").startswith(("http://", "https://")):
            return read_limited(self._fetch_file(url), DOCKERFILE_LIMIT), url
        return None

    # --- standard input -------------------------------------------------------------------------------------------

    def _read_stdin(self) -> BinaryIO:
        if self._stdin is None:
            raise InvalidInput("`-` needs standard input, which this build has not")
        return self._stdin

    def _from_stdin(self) -> Context:
        """A tar is the context, anything else is the Dockerfile of an empty one."""
        if self._request.dockerfile == "-":
            raise InvalidInput("context and Dockerfile cannot both be standard input")
        if self._request.archive:
            return self._from_archive(self._request.archive)
        path = os.path.join(self._new_directory(), "stdin")
        with open(path, "wb") as file:
            stdin = self._read_stdin()
            while data := stdin.read(1 << 20):
                file.write(data)
        return self._from_file(path, "standard input")

    def _from_archive(self, path: str) -> Context:
        """What a client of the API sent. It applied the ignore file, but had to send that and the Dockerfile all the same."""
        context = self._from_file(path, "the context")
        os.unlink(path)
        _remove_own_files(context.tree.path, context.name)
        return context

    def _from_file(self, path: str, what: str) -> Context:
        directory = self._new_directory()
        from builder.operations.archive import is_archive, is_compressed, unpack

        if not is_archive(path):
            if os.path.getsize(path) == 0:
                raise InvalidInput(f"{what} is empty: neither a Dockerfile nor an archive")
            if is_compressed(path):
                raise InvalidInput(f"{what} is compressed, but holds no tar archive that can be read")
            return Context(Tree(directory), read_limited(path, DOCKERFILE_LIMIT), "Dockerfile", False)
        from builder.operations.roots import Root
        from builder.operations.step import Setting

        unpack(path, Root(directory), "", Setting(), owner=None)
        return self._inside(directory)

    def _inside(self, directory: str) -> Context:
        """What somebody put together elsewhere is taken as it is, without an ignore file (A-84)."""
        given = self._given_text()
        if given is None:
            place = self._dockerfile_inside(directory)
            given = read_limited(place, DOCKERFILE_LIMIT), os.path.relpath(place, directory)
        return Context(Tree(directory), given[0], given[1], False)

    def _dockerfile_inside(self, directory: str) -> str:
        """Confined: the archive may hold links."""
        from builder.operations.roots import Root

        root = Root(directory)
        names = [self._request.dockerfile] if self._request.dockerfile else ["Dockerfile", "dockerfile"]
        for name in names:
            place = root.locate(root.resolve(name))
            if place is not None and os.path.isfile(place):
                return place
        raise NotFound(f"no {names[0]} in the context")

    # --- remotes --------------------------------------------------------------------------------------------------

    def _from_remote(self, url: str) -> Context:
        place, time = self._fetch(url)
        if os.path.isdir(place):
            return replace(self._inside(place), time=time)
        return replace(self._from_file(place, url), time=time)


def is_remote(text: str) -> bool:
    """A URL or a git address, as opposed to a path."""
    if text.startswith(("/", ".")) or os.path.exists(text):
        return False
    from builder.lower.remotes import remote_source

    try:
        return remote_source(text) is not None
    except ValueError as error:
        raise InvalidInput(f"build context {text}: {error}") from error


def check_sent(text: str) -> str:
    """A context that somebody else's client names: a URL or a git address, never a path of this host."""
    from builder.lower.remotes import remote_source

    try:
        if remote_source(text) is not None:
            return text
    except ValueError as error:
        raise InvalidInput(f"build context {text}: {error}") from error
    raise InvalidInput(f"build context {text!r} is no URL", hint="send files as an archive, or with buildx")


def check_directory(path: str) -> None:
    if os.path.isdir(path):
        return
    if os.path.exists(path):
        raise InvalidInput(f"build context {path} is not a directory", hint="name the Dockerfile with -f")
    raise NotFound(f"build context {path} does not exist")


def _remove_own_files(directory: str, dockerfile: str) -> None:
    """Take the Dockerfile and the ignore file out of an unpacked context that ignores them."""
    from builder.ignore import Patterns
    from builder.operations.roots import Root

    root = Root(directory)
    place = root.locate(root.resolve(IGNORE_FILE))
    if place is None or not os.path.isfile(place):
        return
    patterns = Patterns.parse(read_limited(place, IGNORE_LIMIT).decode("utf-8", "surrogateescape"))
    for name in (IGNORE_FILE, dockerfile):
        place = root.locate(root.resolve(name))
        if place is not None and os.path.isfile(place) and patterns.excludes(name):
            os.unlink(place)


def read_ignore(directory: str, dockerfile: str) -> Ignoring | None:
    """The patterns beside the Dockerfile, else the context's own (A-84); None when there are none."""
    for place in (
        f"{dockerfile}.dockerignore" if dockerfile else "",
        os.path.join(directory, IGNORE_FILE),
    ):
        if place and os.path.isfile(place):
            return parse_ignore(read_limited(place, IGNORE_LIMIT))
    return None


def parse_ignore(data: bytes) -> Ignoring:
    from builder.ignore import Patterns

    patterns: Ignoring = Patterns.parse(data.decode("utf-8", "surrogateescape"))
    return patterns


def read_limited(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    if len(data) > limit:
        raise InvalidInput(f"{path} is larger than {limit >> 20} MiB")
    return data


def _shown(path: str) -> str:
    """The path as the user would write it."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
