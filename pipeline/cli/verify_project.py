"""`pipe build --verify-reproducible` in a project: each image of its pipe.yaml is built twice, those others build on first.

An image is given to `pipeline.cli.verify` as the words of a `pipe build` of its Dockerfile, its secrets as descriptors, so
that no value is in an argument or on a disk. When all are reproducible, an ordinary build, all cached, gives them their names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

from pipeline.cli.session import Session
from pipeline.cli.verify import Subject, compare
from registry_client.values import replace
from runtime.errors import StepFailed

if TYPE_CHECKING:
    from pipeline.engines import BuildOrder
    from pipeline.loaded import Loaded
    from pipeline.plan import Node
    from pipeline.results import NodeResult


def verify_project(session: Session, names: tuple[str, ...], progress: str | None) -> int:
    """Exit code 0 and the images, or StepFailed with the first difference."""
    from pipeline.commands import run_pipeline
    from pipeline.image import build_order
    from pipeline.loaded import load
    from pipeline.mask import Secrets
    from pipeline.plan import Goal, Kind, plan_run
    from pipeline.secrets import SecretStore
    from pipeline.settings import environment
    from pipeline.spec import ImageSpec

    loaded = load(environment())
    plan = plan_run(loaded.spec, Goal(kind=Kind.IMAGE, names=names), loaded.facts)
    variables = loaded.surroundings.variables
    values = SecretStore(loaded.spec.secrets, loaded.spec.root, variables, Secrets(), loaded.facts)
    results: dict[str, NodeResult] = {}
    for node in plan.nodes:
        if not isinstance(node.subject, ImageSpec) or node.kind is not Kind.IMAGE or node.skip:
            continue
        order = build_order(
            loaded.spec,
            node.subject,
            node.name,
            lambda path: _lookup(loaded, results, path),
            variables,
            values,
            no_cache=False,
        )
        results[node.name] = _verified(session, node, order)
    loaded.surroundings.git.close()
    return run_pipeline(session, kind="build", names=names, progress=progress)


def _lookup(loaded: Loaded, results: dict[str, NodeResult], path: str) -> str | None:
    from pipeline.stage import lookup_result

    return lookup_result(results, path) if path.startswith("images.") else loaded.lookup(path)


def _verified(session: Session, node: Node, order: BuildOrder) -> NodeResult:
    from pipeline.results import NodeResult
    from runtime.events import Outcome

    with _subject(order) as subject:
        try:
            images = compare(session, subject)
        except StepFailed as error:
            raise StepFailed(f"image {order.name}: {error.message}", hint=error.hint) from error
    with session.work(containers=False, progress="none") as services:
        for tag in order.tags:  # others of the project are built on it
            services.images.tag(images[0], tag)
    return NodeResult(node=node.name, kind=node.kind, outcome=Outcome.DONE, image=images[0])


@contextmanager
def _subject(order: BuildOrder) -> Iterator[Subject]:
    """The order as words of `pipe build`."""
    words = [word for flag, values in _flags(order) for value in values for word in (flag, value)]
    if order.pull:
        words.append("--pull")
    files = {name: _memory_file(value) for name, value in order.secrets.items()}
    given = _memory_file(order.dockerfile_inline.encode()) if order.dockerfile_inline else None
    try:
        for name, file in files.items():
            words += ["--secret", f"id={name},src=/proc/self/fd/{file.fileno()}"]
        subject = Subject(context=order.context, words=tuple(words), stdin=given)
        yield replace(subject, descriptors=tuple(file.fileno() for file in files.values()))
    finally:
        for file in (*files.values(), *([given] if given else [])):
            file.close()


def _flags(order: BuildOrder) -> Iterator[tuple[str, list[str]]]:
    file = "-" if order.dockerfile_inline else order.dockerfile
    yield "--file", [file] if file else []
    yield "--target", [order.target] if order.target else []
    yield "--build-arg", [f"{name}={value}" for name, value in order.args if value is not None]
    yield "--label", [f"{name}={value}" for name, value in order.labels]
    yield "--platform", list(order.platforms)
    yield "--build-context", [f"{name}={value}" for name, value in order.contexts]
    yield "--network", [order.network] if order.network else []
    yield "--add-host", [f"{name}={value}" for name, value in order.extra_hosts]
    yield "--shm-size", [str(order.shm_size)] if order.shm_size else []
    agents = (
        (name, agent.socket or ",".join(path for path, _ in agent.keys)) for name, agent in order.ssh.items()
    )
    yield "--ssh", [f"{name}={value}" for name, value in agents]
    if order.rewrite_timestamp:
        yield "--output", ["type=image,rewrite-timestamp=true"]


def _memory_file(data: bytes) -> BinaryIO:
    file = cast(BinaryIO, os.fdopen(os.memfd_create("pipe-verify"), "w+b"))
    file.write(data)
    file.flush()
    return file
