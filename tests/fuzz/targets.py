"""What is fuzzed: functions from bytes to nothing, which raise only when there is a bug.

An input is read or refused with one of our errors that says something. Anything else that is raised is a find, and so is what
takes longer than the runner's limit. Nothing here is started or fetched, and files are made in the target's own directory only.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from builder.checks import check_source
from builder.checks.outline import outline_of, targets_of
from builder.control.filesync import Receiver
from builder.control.messages.files import Packet
from builder.dockerfile import parse_dockerfile
from builder.dockerfile.words import Lexer, WordError
from builder.export.options import image_form
from builder.ignore import Patterns
from builder.lower import lower
from builder.lower.remotes import remote_source
from builder.operations.archive import is_archive, unpack
from builder.operations.roots import Root
from builder.operations.step import Setting
from pipeline.bake.evaluated import evaluated
from pipeline.bake.hcl.parser import parse_hcl
from pipeline.cli.build_flags import build_request
from registry_client.errors import RegistryError
from registry_client.oci.config import dump_config, parse_config
from registry_client.oci.manifest import Index, parse_manifest
from registry_client.oci.platform import host_platform
from registry_client.reference import parse_reference
from runtime.errors import PipeError
from runtime.grpc.protobuf import DecodeError
from runtime.store.layers.estargz import EStargz
from runtime.store.layers.reader import TarReader
from tests.support import REPOSITORY
from tests.support.dockerfile import options_with, resolved

DATA = REPOSITORY / "tests" / "data"
# ValueError is what the readers of `registry_client` promise.
EXPECTED = (PipeError, RegistryError, ValueError)


def dockerfile(data: bytes) -> None:
    """Parse, check, outline and lower; heredocs, mounts, flags and words are in it."""
    try:
        parsed = parse_dockerfile(data)
        options = options_with(build_args={"X": "linux/arm64"})
        targets_of(parsed)
        outline_of(parsed, options)
        lower(parsed, options, resolved(parsed, options))
    except PipeError as error:
        _speaks(error)
    try:
        check_source(data, "Dockerfile", options_with(), ignore=Patterns.parse("x\n"))
    except PipeError as error:
        _speaks(error)


def words(data: bytes) -> None:
    """Shell words, with either escape character."""
    text = data.decode(errors="replace")
    for escape in "\\`":
        for quotes_are_text in (False, True):
            try:
                Lexer(escape, quotes_are_text=quotes_are_text).words(
                    text, {"a": "a/b*c", "b": "", "abc": "}"}
                )
            except WordError as error:
                assert str(error)


def ignore(data: bytes) -> None:
    """.dockerignore: the first line is a path that is looked up."""
    first, _, rest = data.decode(errors="replace").partition("\n")
    try:
        patterns = Patterns.parse(rest)
    except PipeError as error:
        _speaks(error)
        return
    for path in (first.strip("/") or "a", "a/b/c", ".git/config"):
        patterns.excludes(path)
        patterns.excludes(path, is_dir=True)
        patterns.may_reinclude_below(path)


def tar(data: bytes) -> None:
    """The reader of layers and archives, front to back."""
    try:
        reader = TarReader(io.BytesIO(data))
        for member in reader:
            assert member.size >= 0
            for _chunk in reader.data():
                pass
    except PipeError as error:
        _speaks(error)


def add(data: bytes) -> None:
    """ADD of an archive, unpacked; nothing may appear beside its root."""
    with tempfile.TemporaryDirectory(prefix="pipe-fuzz-", dir="/dev/shm") as directory:
        place, top = Path(directory, "a.tar"), Path(directory, "root")
        place.write_bytes(data)
        top.mkdir()
        root = Root(str(top))
        root.ensure("in", mtime_ns=10**18)
        try:
            if is_archive(str(place)):
                unpack(str(place), root, "in", Setting(), owner=None)
        except PipeError as error:
            _speaks(error)
        assert sorted(path.name for path in Path(directory).iterdir()) == ["a.tar", "root"]
        assert [path.name for path in top.iterdir()] == ["in"]
        shutil.rmtree(top, ignore_errors=True)


def transfer(data: bytes) -> None:
    """Packets of a client that sends its files, each with two bytes of length before it; nothing may appear beside them."""
    packets = []
    while len(data) > 2:
        size = int.from_bytes(data[:2])
        packets.append(data[2 : 2 + size])
        data = data[2 + size :]
    with tempfile.TemporaryDirectory(prefix="pipe-fuzz-", dir="/dev/shm") as directory:
        top = Path(directory, "root")
        top.mkdir()
        for _ in range(2):  # what the first one left is what the second one finds
            try:
                Receiver(_Packets(packets), str(top)).run()  # type: ignore[arg-type]
            except PipeError as error:
                _speaks(error)
        assert [path.name for path in Path(directory).iterdir()] == ["root"]


class _Packets:
    """Stands for a stream on which everything has come already."""

    has_more = False

    def __init__(self, packets: list[bytes]) -> None:
        self._packets = packets

    def messages(self, kind: type[Packet]) -> Iterator[Packet]:
        for packet in self._packets:
            try:
                yield kind.decode(packet)
            except DecodeError:
                return

    def write(self, *packets: Packet) -> None:
        pass

    def end_sending(self) -> None:
        pass


def config(data: bytes) -> None:
    """An image's config; what is written back is read as the same."""
    try:
        image = parse_config(data)
    except EXPECTED as error:
        _speaks(error)
        return
    assert parse_config(dump_config(image)) == image


def manifest(data: bytes) -> None:
    """A manifest or an index."""
    try:
        found = parse_manifest(data)
    except EXPECTED as error:
        _speaks(error)
        return
    if isinstance(found, Index):
        found.choose(host_platform())


def reference(data: bytes) -> None:
    """The name of an image; what is shown is read as the same."""
    try:
        found = parse_reference(data.decode(errors="replace"))
    except ValueError as error:
        assert str(error)
        return
    assert parse_reference(str(found)) == found
    assert parse_reference(found.familiar) == found


def remote(data: bytes) -> None:
    """A URL or a git address of ADD, or a context."""
    try:
        remote_source(data.decode(errors="replace"))
    except EXPECTED as error:
        _speaks(error)


MANY = (
    "build_arg", "tag", "platform", "no_cache_filter", "secret", "ssh", "label", "annotation", "build_context", "add_host",
    "ulimit", "allow", "output", "attest", "cache_to", "cache_from",
)  # fmt: skip
ONE = ("network", "memory", "shm_size", "provenance", "sbom", "cgroup_parent", "epoch", "cpuset_cpus")


def hcl(data: bytes) -> None:
    """A bake file, worked out."""
    try:
        evaluated([parse_hcl(data.decode(errors="replace"), "fuzz.hcl")], {})
    except PipeError as error:
        _speaks(error)


def estargz(data: bytes) -> None:
    """A tar on its way into an eStargz layer."""
    try:
        with tempfile.TemporaryDirectory() as scratch, EStargz(io.BytesIO(), scratch) as out:
            out.write(data)
    except PipeError as error:
        _speaks(error)


def flags(data: bytes) -> None:
    """The flags of `pipe build`: each line is a number, which flag, and its value."""
    given: dict[str, object] = dict.fromkeys(MANY, ()) | dict.fromkeys(FLAGS)
    for line in data.decode(errors="replace").replace("\0", "").split("\n")[:8]:
        number = ord(line[0]) if line else 0
        name = (MANY + ONE)[number % len(MANY + ONE)]
        given[name] = (*given[name], line[1:]) if name in MANY else line[1:]  # type: ignore[misc]
    epoch = str(given.pop("epoch") or "")
    try:
        request = build_request(".", given, {"A": "1"}, epoch)
        for output in request.outputs:
            image_form(output, request.annotations, attested=False)
    except PipeError as error:
        _speaks(error)


FLAGS = (
    *ONE, "file", "target", "no_cache", "pull", "metadata_file", "push", "load", "cpu_shares", "cpu_period", "cpu_quota",
    "cpuset_mems", "pin_lock", "source_policy_file",
)  # fmt: skip
TARGETS: dict[str, Callable[[bytes], None]] = {
    "dockerfile": dockerfile, "words": words, "ignore": ignore, "tar": tar, "add": add, "transfer": transfer, "config": config,
    "manifest": manifest, "reference": reference, "remote": remote, "flags": flags,
    "hcl": hcl, "estargz": estargz,
}  # fmt: skip


def _speaks(error: Exception) -> None:
    assert str(error).strip()
