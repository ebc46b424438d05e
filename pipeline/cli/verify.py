"""`pipe build --verify-reproducible`: build twice as if on two machines, and say where the results part (FEATURES M-13).

The two builds are commands of their own, without each other's cache. The second has another directory (its files made in
the opposite order), temporary directory, host name, time zone, language, umask and number of jobs, and comes in another
second. If both give the same image, a third run, all cached, makes the tags and outputs that were asked for.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import click

from builder.asked import BUILD_HOSTNAME
from pipeline.cli.session import Session
from registry_client.values import field, frozen, replace
from runtime.errors import InvalidInput, StepFailed
from runtime.temporary import temporary_directory

if TYPE_CHECKING:
    from builder.reproducible import Difference
    from pipeline.services import Services
    from runtime.images.image import Image

# What is made of the result is made once, at the end.
_ONLY_AT_THE_END = frozenset(
    {"tag", "output", "push", "load", "iidfile", "metadata_file", "quiet", "verify_reproducible"}
)
# The first is a build as any other, so that the last finds its steps and names the very image that was compared.
_STEP_HOST_NAMES = (BUILD_HOSTNAME, "machine-two")


@frozen(kw_only=True)
class Conditions:
    """What differs between two builds that should not count."""

    environment: Mapping[str, str]
    umask: int
    arguments: tuple[str, ...]


@frozen(kw_only=True)
class Subject:
    """What is built, as words of `pipe build` without what is made of the result. `descriptors` are open in each build."""

    context: str
    words: tuple[str, ...]
    stdin: BinaryIO | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    descriptors: tuple[int, ...] = ()


def verify(
    session: Session, context: str, flags: Mapping[str, Any], options: Sequence[click.Parameter]
) -> int:
    """Exit code 0 and the image, or StepFailed with the first difference."""
    if context == "-" and flags["file"] == "-":
        raise InvalidInput("context and Dockerfile cannot both be standard input")
    words = command_line(flags, options, leave_out=_ONLY_AT_THE_END)
    if any("rewrite-timestamp=true" in output for output in flags["output"]):
        words += ["-o", "type=image,rewrite-timestamp=true"]
    if flags["quiet"]:  # the last one prints the image's id
        words += ["--progress", "none"]
    with ExitStack() as stack:
        given = None
        if "-" in (context, flags["file"]):
            # Standard input comes once, and is read three times.
            given = cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile()))
            shutil.copyfileobj(sys.stdin.buffer, given)
        subject = Subject(context=context, words=tuple(words), stdin=given)
        compare(session, subject)
        ending = command_line(flags, options, leave_out={"verify_reproducible"})
        return run_build(session, replace(subject, words=(*ending, context)))


def compare(session: Session, subject: Subject) -> tuple[str, ...]:
    """Build twice; the ids of the images, one for each platform, or StepFailed with the first difference."""
    with temporary_directory("pipe-verify-") as place:
        namespace = f"verify-{secrets.token_hex(8)}"
        built = [
            _build(session, subject, context, _conditions(number, place, namespace), place)
            for number, context in enumerate(_contexts(subject.context, place))
        ]
        _judge(session, built, namespace)
        return built[0]


def command_line(
    flags: Mapping[str, Any], options: Sequence[click.Parameter], *, leave_out: frozenset[str] | set[str]
) -> list[str]:
    """The flags as words again."""
    words: list[str] = []
    for option in options:
        if not isinstance(option, click.Option) or option.name in leave_out or not option.name:
            continue
        value, name = flags[option.name], max(option.opts, key=len)
        if option.is_flag:
            words += [name] if value else []
        elif option.multiple:
            words += [word for each in value for word in (name, each)]
        elif value is not None and value != option.default:
            words += [name, str(value)]
    return words


def _contexts(context: str, place: str) -> Iterator[str]:
    """The context itself, and a copy of it in another directory; what lies elsewhere anyway is only fetched again."""
    yield context
    # Files of both builds made within one second would have the same time by chance.
    time.sleep(1.1 - time.time() % 1)
    if not os.path.isdir(context):
        yield context
        return
    copy = os.path.join(place, "another", "directory")
    copy_reversed(os.path.realpath(context), copy)
    yield copy


def copy_reversed(source: str, target: str) -> None:
    """A copy with the same modes and times whose entries were made in the opposite order."""
    os.makedirs(target)
    with os.scandir(source) as listing:
        entries = sorted(listing, key=lambda entry: entry.name, reverse=True)
    for entry in entries:
        place = os.path.join(target, entry.name)
        if entry.is_dir(follow_symlinks=False):
            copy_reversed(entry.path, place)
        elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
            shutil.copy2(entry.path, place, follow_symlinks=False)
    shutil.copystat(source, target)


def _conditions(number: int, place: str, namespace: str) -> Conditions:
    temporary = os.path.join(place, ("tmp", "other-tmp")[number])
    os.mkdir(temporary)
    environment = {
        "TMPDIR": temporary,
        "TZ": ("UTC", "Asia/Kathmandu")[number],
        "LANG": ("C.UTF-8", "POSIX")[number],
        "PYTHONHASHSEED": ("1", "2")[number],
        "PIPE_JOBS": ("8", "1")[number],
    }
    arguments = ("--no-cache", "--build-arg", f"BUILDKIT_SANDBOX_HOSTNAME={_STEP_HOST_NAMES[number]}",
                 "--build-arg", f"BUILDKIT_CACHE_MOUNT_NS={namespace}-{number}")  # fmt: skip
    return Conditions(environment=environment, umask=(0o022, 0o077)[number], arguments=arguments)


def _build(
    session: Session, subject: Subject, context: str, conditions: Conditions, place: str
) -> tuple[str, ...]:
    """The image ids of one build."""
    note = os.path.join(place, f"result-{os.path.basename(conditions.environment['TMPDIR'])}")
    words = (*subject.words, *conditions.arguments, "--metadata-file", note, context)
    code = run_build(session, replace(subject, words=words), conditions)
    if code != 0:
        raise StepFailed("the build failed, so there is nothing to compare", exit_code=code)
    with open(note, encoding="utf-8") as file:
        record = json.load(file)
    return tuple(record.get("pipe.images") or (record["containerimage.config.digest"],))


def run_build(session: Session, subject: Subject, conditions: Conditions | None = None) -> int:
    """`pipe build …` in a process of its own, on this store and terminal."""
    from pipeline.settings import environment

    command = [sys.executable, "-m", "pipeline.cli.main", "--root", session.settings.root]
    command += ["--progress", session.settings.progress, "build", *subject.words]
    if subject.stdin is not None:
        subject.stdin.seek(0)  # the description is shared: the last one read to the end
    process = subprocess.Popen(
        command,
        env={**environment(), **(conditions.environment if conditions else {}), **subject.environment},
        umask=conditions.umask if conditions else -1,
        stdin=subject.stdin,
        pass_fds=subject.descriptors,
    )
    with session.cancel.on_cancel(process.terminate):
        process.wait()
    session.cancel.check()
    return process.returncode


# --- the verdict --------------------------------------------------------------------------------------------------


def _judge(session: Session, built: Sequence[tuple[str, ...]], namespace: str) -> None:
    from builder.reproducible import first_difference

    with session.work(containers=False, progress="none") as services:
        try:
            pairs = [
                (services.images.get(first), services.images.get(second))
                for first, second in zip(*built, strict=True)
            ]
            found = [(first, first_difference(services.store, first, second)) for first, second in pairs]
            different = next(((image, each) for image, each in found if each is not None), None)
            if different is not None:
                _drop(services, [image for pair in pairs for image in pair])
        finally:
            _drop_cache_mounts(services, namespace)
    if different is not None:
        image, difference = different
        platform = f" for {image.config.platform}" if len(pairs) > 1 else ""
        raise StepFailed(_told(difference, platform), hint=_hint(difference))
    click.echo(f"reproducible: two builds gave {' '.join(built[0])}", err=True)


def _drop(services: Services, images: Sequence[Image]) -> None:
    """Images nobody asked for; one that has a name was there before."""
    for image in {image.id: image for image in images}.values():
        if not image.tags and not services.images.users(image.id):
            services.images.remove(image.id)


def _drop_cache_mounts(services: Services, namespace: str) -> None:
    from builder.prune import Policy, prune

    pattern = f"{namespace}-%"
    rows = services.store.db.read("SELECT id FROM cache_mounts WHERE name LIKE ?", (pattern,))
    if ids := tuple(row["id"][:12] for row in rows):
        prune(services.store, Policy(ids=ids))


def _told(difference: Difference, platform: str) -> str:
    place = f"layer {difference.layer} ({difference.instruction})" if difference.layer else "only the config"
    lines = [f"not reproducible{platform}: {place} differs"]
    for each in difference.deviations:
        lines.append(f"  {each.path or 'the'} {each.what}: {each.first} / {each.second}")
    if difference.files > 1:
        times = ", all by their times only" if difference.only_times else ""
        lines.append(f"  {difference.files} entries of the layer differ{times}")
    return "\n".join(lines)


def _hint(difference: Difference) -> str:
    if difference.only_times:
        return "set SOURCE_DATE_EPOCH, and build with -o type=image,rewrite-timestamp=true"
    return ""
