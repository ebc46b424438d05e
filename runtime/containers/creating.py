"""Make a container: a row, a directory, its volumes. Nothing runs, and nothing is left behind when it fails.

What can be wrong with a spec is found before the row is written. The row comes first, so the name is decided by the
database; while the directory is made, the row names its maker, and goes with it should that be killed.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Literal, cast

from registry_client.values import replace
from runtime.containers.after import remove_container
from runtime.containers.config import Surroundings, oci_config
from runtime.containers.container import Container, PlacedMount, cgroup_path
from runtime.containers.mounts import Placing
from runtime.containers.names import check_name, new_id
from runtime.containers.spec import ContainerSpec
from runtime.containers.starting import log_settings, stop_signal
from runtime.containers.state import State
from runtime.errors import InvalidInput, Unsupported
from runtime.store.durable import faults_of_the_host
from runtime.store.owners import own_token

if TYPE_CHECKING:
    from runtime.cancel import Cancel
    from runtime.containers.containers import Containers
    from runtime.images.image import Image


def create(
    containers: Containers, spec: ContainerSpec, *, pull: str, cancel: Cancel | None, creator: str
) -> Container:
    policy = cast(Literal["missing", "always", "never"], pull)
    image = containers.images.resolve(spec.image, platform=spec.platform or None, pull=policy, cancel=cancel)
    draft = _draft(containers, spec, image)
    config = _check(draft)
    snapshot = containers.images.snapshot(image, cancel) or ""
    container = containers.records.add(replace(draft, snapshot=snapshot), own_token())
    try:
        _make_directory(container, config)
        mounts = _place(containers, container)
        containers.records.complete(container.id, mounts, creator)
    except BaseException:
        remove_container(containers.store, containers.volumes, container.id, volumes_too=True)
        raise
    return replace(container, mounts=mounts)


def _draft(containers: Containers, spec: ContainerSpec, image: Image) -> Container:
    identifier = new_id()
    return Container(
        id=identifier,
        name=check_name(spec.name) if spec.name else "",
        image=image.id,
        image_name=spec.image,
        snapshot="",
        created=time.time(),
        spec=spec,
        image_config=image.config.config,
        mounts=(),
        state=State(),
        directory=containers.records.path(identifier),
    )


def _check(draft: Container) -> bytes:
    """Everything in a spec that can be wrong without looking at the host."""
    around = Surroundings(id=draft.id, cgroup="/" + cgroup_path(draft.spec, draft.id))
    config = oci_config(draft.spec, draft.image_config, around)
    stop_signal(draft)
    log_settings(draft)
    if draft.spec.auto_remove and draft.spec.restart.name != "no":
        raise InvalidInput("a container that is removed at its end cannot have a restart policy")
    if draft.spec.runtime:
        _check_runtime(draft.spec.runtime)
    return json.dumps(config).encode()


def _check_runtime(name: str) -> None:
    from shutil import which  # a millisecond of imports that few need

    if which(name) is None:
        message = f"no OCI runtime {name!r} on this machine"
        raise Unsupported(message, hint="install it, or leave --runtime out")


def _make_directory(container: Container, config: bytes) -> None:
    with faults_of_the_host(f"cannot make container {container.name}"):
        os.mkdir(container.directory, 0o710)
        upper = os.path.join(container.directory, "upper")
        os.mkdir(upper, 0o755)
        os.mkdir(os.path.join(container.directory, "work"), 0o711)
        with open(os.path.join(container.directory, "config.json"), "wb") as file:
            file.write(config)


def _place(containers: Containers, container: Container) -> tuple[PlacedMount, ...]:
    def lowers(name: str) -> tuple[str, ...]:
        snapshot = containers.images.snapshot(containers.images.resolve(name))
        return containers.store.snapshots.lowers(snapshot) if snapshot else ()

    if container.snapshot:
        from runtime.store.snapshots import copy_attributes

        # The upper directory is what the container sees as the attributes of `/`.
        top = containers.store.snapshots.lowers(container.snapshot)[0]
        copy_attributes(top, os.path.join(container.directory, "upper"))
    placing = Placing(containers.store, containers.volumes, container, other=containers.get, image=lowers)
    return placing.place()
