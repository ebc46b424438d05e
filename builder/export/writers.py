"""Write one output: an archive, a directory, a root file system, or a push.

What goes to a file is written beside it and renamed, so a failed export leaves the earlier file. `dest` "-" is standard
output, which then belongs to the archive alone.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO

from builder.export.roots import write_directory, write_tar
from builder.request import BuildRequest, OutputMade, OutputWanted
from registry_client.reference import Reference, parse_reference
from runtime.errors import InvalidInput, Unsupported
from runtime.store.durable import faults_of_the_host, remove_file

if TYPE_CHECKING:
    from builder.operations.step import Setting
    from runtime.images.image import Image
    from runtime.images.images import Images
    from runtime.store.store import Store


def write_output(
    store: Store,
    images: Images,
    request: BuildRequest,
    built: Sequence[Image],
    wanted: OutputWanted,
    setting: Setting,
) -> OutputMade:
    """Write one output of the images (one for each platform)."""
    match wanted.type:
        case "image" | "cacheonly":
            return _name_image(images, request, built, wanted)
        case "registry":
            return _push(images, request, built, wanted, setting)
        case "oci" | "docker":
            return _write_archive(images, request, built, wanted)
        case "local":
            for image in built:
                with _root(store, images, image) as root:
                    write_directory(root, _platform_place(wanted, built, image), setting)
            return OutputMade(wanted.type, wanted.dest)
        case "tar":
            with ExitStack() as stack:
                image = _only(built, wanted)
                root = stack.enter_context(_root(store, images, image))
                write_tar(root, stack.enter_context(opened_output(wanted.dest)), setting)
            return OutputMade(wanted.type, wanted.dest)
    raise Unsupported(f"output type {wanted.type!r} is not known")


def _only(built: Sequence[Image], wanted: OutputWanted) -> Image:
    if len(built) != 1:
        raise Unsupported(f"output {wanted.type} of several platforms", hint="build one platform at a time")
    return built[0]


def _platform_place(wanted: OutputWanted, built: Sequence[Image], image: Image) -> str:
    if len(built) == 1:
        return wanted.dest
    return os.path.join(wanted.dest, str(image.config.platform).replace("/", "_"))


@contextmanager
def _root(store: Store, images: Images, image: Image) -> Iterator[str]:
    """The image's file system at a path."""
    snapshot = images.snapshot(image)
    if snapshot is None:
        yield os.path.join(store.root, "empty")
        return
    with store.snapshots.mounted(snapshot) as path:
        yield path


# --- names --------------------------------------------------------------------------------------------------------


def _names(request: BuildRequest, wanted: OutputWanted) -> list[str]:
    return [name for name in wanted.name.split(",") if name] or list(request.tags)


def _name_image(
    images: Images, request: BuildRequest, built: Sequence[Image], wanted: OutputWanted
) -> OutputMade:
    if wanted.type == "image":
        for name in filter(None, wanted.name.split(",")):
            images.tag(built[0].id, name)
    return OutputMade(wanted.type, "", "")


def _push(
    images: Images, request: BuildRequest, built: Sequence[Image], wanted: OutputWanted, setting: Setting
) -> OutputMade:
    names = _names(request, wanted)
    if not names:
        raise InvalidInput("a push needs a name", hint="give one with -t or name=")
    digest = ""
    for name in names:
        image = _only(built, wanted)
        digest = images.push(image.id, name, compression=_compression(wanted), cancel=setting.cancel).digest
    return OutputMade("registry", names[0], digest)


def _compression(wanted: OutputWanted) -> str:
    return "" if wanted.compression == "uncompressed" else wanted.compression


# --- archives -----------------------------------------------------------------------------------------------------


def _write_archive(
    images: Images, request: BuildRequest, built: Sequence[Image], wanted: OutputWanted
) -> OutputMade:
    from runtime.images.archive_out import Saved, write_archive

    references = tuple(_reference(name) for name in _names(request, wanted))
    saved = [
        Saved(image, images.manifest(image, _compression(wanted)), references if image is built[0] else ())
        for image in built
    ]
    if wanted.options.get("tar", "").lower() == "false":
        _write_layout(images, saved, wanted)
    else:
        with opened_output(wanted.dest) as out:
            write_archive(images, saved, out, docker=wanted.type == "docker")
    return OutputMade(wanted.type, wanted.dest, saved[0].manifest.digest)


def _write_layout(images: Images, saved: Sequence[object], wanted: OutputWanted) -> None:
    """An OCI layout as a directory: the archive's members, unpacked as they are written."""
    import shutil
    import tarfile
    import threading

    from runtime.images.archive_out import write_archive

    os.makedirs(wanted.dest, exist_ok=True)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    failure: list[BaseException] = []

    def write() -> None:
        try:
            with open(writing, "wb") as out:
                write_archive(images, saved, out, docker=wanted.type == "docker")  # type: ignore[arg-type]
        except BaseException as error:  # noqa: BLE001  raised below, in the caller's thread
            failure.append(error)

    writer = threading.Thread(target=write, name="layout")
    writer.start()
    try:
        with open(reading, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:  # the names are ours
                place = os.path.join(wanted.dest, member.name)
                data = archive.extractfile(member)
                if data is None:
                    os.makedirs(place, exist_ok=True)
                    continue
                with open(place, "wb") as file:
                    shutil.copyfileobj(data, file, 1 << 20)
    finally:
        writer.join()
    if failure:
        raise failure[0]


def _reference(name: str) -> Reference:
    try:
        return parse_reference(name).or_latest()
    except ValueError as error:
        raise InvalidInput(str(error)) from error


@contextmanager
def opened_output(dest: str) -> Iterator[BinaryIO]:
    """The file to write to, complete under its name at the end of the block or not at all."""
    if dest == "-":
        out = sys.stdout.buffer
        yield out
        out.flush()
        return
    if os.path.isdir(dest):
        raise InvalidInput(f"output {dest} is a directory", hint="name a file")
    temporary = f"{dest}.{secrets.token_hex(4)}"
    with faults_of_the_host(f"cannot write {dest}"):
        os.makedirs(os.path.dirname(dest) or ".", exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                yield file
            os.rename(temporary, dest)
        except BaseException:
            remove_file(temporary)
            raise
