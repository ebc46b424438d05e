"""What a finished stage left in its container: outputs, reports, artifacts. Missing files are a warning, never a failure."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from pipeline.artifacts import Artifact, ArtifactStore, fixed_parent, parse_outputs
from pipeline.config.container import Pairs
from pipeline.engines import Engine
from pipeline.junit import TestReport, merge_reports, parse_junit
from pipeline.mask import Secrets
from pipeline.spec import StageSpec
from registry_client.values import frozen
from runtime.errors import InvalidInput, NotFound

Warn = Callable[[str], None]
_REPORT_LIMIT = 64 << 20
_OUTPUT_LIMIT = 1 << 20
_SCAN_LIMIT = 16 << 20


@frozen
class Collected:
    outputs: Pairs = ()
    tests: TestReport | None = None
    artifacts: tuple[Artifact, ...] = ()


def collect_files(
    engine: Engine,
    store: ArtifactStore,
    container: str,
    stage: StageSpec,
    *,
    green: bool,
    outputs: str,
    secrets: Secrets,
    warn: Warn,
) -> Collected:
    """Take out what the stage's keys name."""
    reports = _collect(engine, store, container, stage.junit, (), warn)
    wanted = {"always": True, "on_success": green, "on_failure": not green}[stage.artifacts.when]
    kept: tuple[Artifact, ...] = ()
    if wanted:
        kept = _collect(engine, store, container, stage.artifacts.paths, stage.artifacts.exclude, warn)
    # Reports are artifacts too: `pipe artifacts` finds them.
    for artifact in kept:
        if _holds_a_secret(store, artifact, secrets):
            warn(f"{artifact.path} holds a secret")
    every = tuple({artifact.path: artifact for artifact in (*kept, *reports)}.values())
    return Collected(_outputs(outputs, warn), _tests(store, reports, warn), every)


def _collect(
    engine: Engine,
    store: ArtifactStore,
    container: str,
    patterns: tuple[str, ...],
    exclude: tuple[str, ...],
    warn: Warn,
) -> tuple[Artifact, ...]:
    found: dict[str, Artifact] = {}
    for parent in dict.fromkeys(fixed_parent(pattern) for pattern in patterns):
        own = tuple(pattern for pattern in patterns if fixed_parent(pattern) == parent)
        base = parent.rsplit("/", 1)[0] or "/"
        try:
            with engine.copy_out(container, parent) as archive:
                for artifact in store.collect(archive, base, own, exclude):
                    found[artifact.path] = artifact
        except NotFound:
            pass
        missing = [p for p in own if not any(_below(path, p) for path in found)]
        for pattern in missing:
            warn(f"nothing matches {pattern}")
    return tuple(found.values())


def _holds_a_secret(store: ArtifactStore, artifact: Artifact, secrets: Secrets) -> bool:
    """Artifacts are kept as they are: masking would break them. But whoever wrote that should know."""
    if secrets.pattern is None or not artifact.digest or artifact.size > _SCAN_LIMIT:
        return False
    return secrets.pattern.search(store.read(artifact)) is not None


def _below(path: str, pattern: str) -> bool:
    from pipeline.conditions import path_matches

    return path_matches(path, pattern)


def _tests(store: ArtifactStore, reports: tuple[Artifact, ...], warn: Warn) -> TestReport | None:
    parsed = []
    for artifact in reports:
        if not artifact.digest or artifact.size > _REPORT_LIMIT:
            continue
        try:
            parsed.append(parse_junit(store.read(artifact), artifact.path))
        except InvalidInput as error:
            warn(error.message)
    return merge_reports(parsed) if parsed else None


def _outputs(path: str, warn: Warn) -> Pairs:
    data = _read_regular(path)
    if data is None:
        warn("$PIPE_OUTPUT is not the file it was; it is not read")
        return ()
    if len(data) > _OUTPUT_LIMIT:
        warn(f"$PIPE_OUTPUT is larger than {_OUTPUT_LIMIT >> 10} KiB; it is not read")
        return ()
    return parse_outputs(data)


def _read_regular(path: str) -> bytes | None:
    """The stage may have replaced the file: by a link into the host, or a pipe nobody writes to."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return os.read(descriptor, _OUTPUT_LIMIT + 1)  # a regular file gives all it has up to that
    finally:
        os.close(descriptor)
