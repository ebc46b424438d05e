"""Routes that bring images from and to elsewhere: pull, import, push, load, save, logins (FEATURES E-29, E-33, E-38, E-46 to E-48)."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO, cast

from registry_client.credentials import GivenLogins
from registry_client.oci.config import ContainerConfig
from registry_client.oci.manifest import Index, parse_manifest
from registry_client.oci.platform import Platform
from registry_client.reference import Reference, parse_reference
from runtime.cancel import Cancel
from runtime.daemon import wire
from runtime.daemon.api import Route
from runtime.daemon.engine import Engine
from runtime.daemon.logins import sent_login
from runtime.daemon.streams import Tell, stream, stream_bytes
from runtime.daemon.telling import Pulling, Pushing
from runtime.errors import Denied, InvalidInput, NotFound
from runtime.http.messages import HttpError, Request, Response, json_response
from runtime.images.transport import connected

_CONFIG_LIMIT = 8 << 20
ConfigOf = Callable[[Sequence[str]], ContainerConfig]


class Transfers:
    """`config_of` reads the instructions of an import's `changes`; who can do that is handed in."""

    def __init__(self, engine: Engine, config_of: ConfigOf) -> None:
        self._engine, self._config_of = engine, config_of

    def routes(self) -> Iterable[Route]:
        yield "POST", "/images/create", self.create
        yield "POST", "/images/load", self.load
        yield "GET", "/images/get", self.save
        yield "GET", "/images/{name:path}/get", self.save
        yield "POST", "/images/{name:path}/push", self.push
        yield "GET", "/distribution/{name:path}/json", self.distribution
        yield "POST", "/auth", self.login

    # --- in -------------------------------------------------------------------------------------------------------

    def create(self, request: Request) -> Response:
        if request.argument("fromImage"):
            return self._pull(request)
        if request.argument("fromSrc") == "-":
            return self._import(request)
        if request.argument("fromSrc"):
            raise InvalidInput(
                f"cannot import from {request.argument('fromSrc')!r} here", hint="send the archive: fromSrc=-"
            )
        raise InvalidInput("neither fromImage nor fromSrc was given")

    def _pull(self, request: Request) -> Response:
        reference = _reference(request.argument("fromImage"), request.argument("tag")).or_latest()
        credentials = sent_login(request, reference.domain)
        platform = request.argument("platform") or None

        def work(tell: Tell, cancel: Cancel) -> None:
            telling = Pulling(tell, reference)
            with self._engine.working(credentials, telling.emit) as images:
                before = images.find(str(reference))
                image = images.pull(reference, platform, cancel=cancel)
                telling.end(image, new=before is None or before.id != image.id)

        return stream(request, work, self._engine.cancel)

    def _import(self, request: Request) -> Response:
        config = self._config_of(request.query.get("changes", ()))
        name = (
            _reference(request.argument("repo"), request.argument("tag"))
            if request.argument("repo")
            else None
        )
        now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")

        def work(tell: Tell, cancel: Cancel) -> None:
            with self._engine.working() as images:
                image = images.import_root(
                    body_file(request), config=config, comment=request.argument("message"), created=now
                )
                if name is not None:
                    images.tag(image.id, str(name.or_latest()))
            tell({"status": image.id})

        return stream(request, work, self._engine.cancel)

    def load(self, request: Request) -> Response:
        platform = request.argument("platform") or None

        def work(tell: Tell, cancel: Cancel) -> None:
            # Nothing is told before the archive is read: one connection cannot do both from two threads.
            with self._engine.working() as images:
                loaded = images.load(body_file(request), platform)
                for image in loaded:
                    images.snapshot(image, cancel)
            for image in loaded:
                names = [parse_reference(tag).familiar for tag in image.tags]
                for name in names:
                    tell({"stream": f"Loaded image: {name}\n"})
                if not names:
                    tell({"stream": f"Loaded image ID: {image.id}\n"})

        return stream(request, work, self._engine.cancel)

    # --- out ------------------------------------------------------------------------------------------------------

    def save(self, request: Request) -> Response:
        named = request.params.get("name")
        names = (
            [named]
            if named
            else [each for text in request.query.get("names", ()) for each in text.split(",")]
        )
        if not names:
            raise InvalidInput("no names of images were given")
        for name in names:
            if self._engine.images.find(name) is None:
                raise NotFound(f"No such image: {name}")

        def work(out: BinaryIO, cancel: Cancel) -> None:
            with self._engine.working() as images:
                images.save(names, out, cancel=cancel)

        return stream_bytes(request, work, self._engine.cancel, {"Content-Type": "application/x-tar"})

    def push(self, request: Request) -> Response:
        wanted = _reference(request.params["name"], request.argument("tag"))
        credentials = sent_login(request, wanted.domain)
        platform = _platform(request.argument("platform"))

        def work(tell: Tell, cancel: Cancel) -> None:
            tell({"status": f"The push refers to repository [{wanted.name}]"})
            telling = Pushing(tell)
            with self._engine.working(credentials, telling.emit) as images:
                for reference in self._pushed(wanted):
                    pushed = images.push(str(reference), platform=platform, cancel=cancel)
                    telling.end(reference, pushed.digest, pushed.size)

        return stream(request, work, self._engine.cancel)

    def _pushed(self, wanted: Reference) -> list[Reference]:
        """The name, or without a tag all that the repository has here."""
        tags = [tag for image in self._engine.images.list() for tag in image.tags]
        known = [parse_reference(tag) for tag in sorted(tags)]
        here = [each for each in known if each.name == wanted.name and wanted.tag in ("", each.tag)]
        if not here:
            raise NotFound(f"An image does not exist locally with the tag: {wanted.familiar_name}")
        return here

    # --- registries -----------------------------------------------------------------------------------------------

    def distribution(self, request: Request) -> Response:
        """What a name means at its registry."""
        reference = _reference(request.params["name"], "").or_latest()
        transport = self._engine.transport(sent_login(request, reference.domain), lambda event: None)
        try:
            with connected(transport, reference) as client:
                raw, media_type, digest = client.manifest(reference.path, reference.selector)
                top = parse_manifest(raw, media_type)
                if isinstance(top, Index):
                    platforms = [each.platform for each in top.manifests if each.platform]
                else:
                    with client.blob(reference.path, top.config.digest, size=top.config.size) as chunks:
                        platforms = [_platform_of(chunks, top.config.size)]
        except ValueError as error:
            raise InvalidInput(f"manifest of {reference.familiar}: {error}") from error
        finally:
            transport.close()
        return json_response(wire.distribution_record(top.media_type, digest, len(raw), platforms))

    def login(self, request: Request) -> Response:
        """Try a login; the client keeps it."""
        try:
            record = json.loads(request.body.read(_CONFIG_LIMIT))
            server = str(record.get("serveraddress") or "docker.io")
        except (ValueError, AttributeError) as error:
            raise InvalidInput(f"invalid login: {error}") from error
        host = server.removeprefix("https://").removeprefix("http://").partition("/")[0]
        host = "docker.io" if host in ("index.docker.io", "registry-1.docker.io", "") else host
        transport = self._engine.transport(GivenLogins({host: record}), lambda event: None)
        try:
            with connected(transport, _reference(f"{host}/name", "")) as client:
                cast(Any, client).ping()
        except Denied as error:
            raise HttpError(401, error.message) from error
        finally:
            transport.close()
        return json_response({"Status": "Login Succeeded", "IdentityToken": ""})


class _BodyFile(io.RawIOBase):
    """A request's body to read from."""

    def __init__(self, request: Request) -> None:
        self._chunks = iter(request.body)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def body_file(request: Request) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_BodyFile(request), 1 << 18))


def _reference(name: str, tag: str) -> Reference:
    """`name` with what stands in a parameter of its own: a tag, or a digest."""
    text = name if not tag else f"{name}{'@' if ':' in tag else ':'}{tag}"
    try:
        return parse_reference(text)
    except ValueError as error:
        raise InvalidInput(f"invalid reference format: {error}") from error


def _platform(text: str) -> str | None:
    """`os/arch`, or the JSON object that the API has for it."""
    if not text.startswith("{"):
        return text or None
    try:
        record = json.loads(text)
        words = (record.get("os", "linux"), record.get("architecture", ""), record.get("variant", ""))
    except (ValueError, AttributeError) as error:
        raise InvalidInput(f"invalid platform {text!r}") from error
    return "/".join(str(word) for word in words if word)


def _platform_of(chunks: Iterable[bytes], size: int) -> Platform:
    from registry_client.oci.config import parse_config

    if size > _CONFIG_LIMIT:
        raise ValueError(f"a config of {size} bytes")
    return parse_config(b"".join(chunks)).platform
