"""Further processes in a running container (`exec`): what is asked, and the OCI process its shim starts."""

from __future__ import annotations

from typing import Any

from runtime.containers.client import Connection
from runtime.containers.config import capabilities, environment_of, hostname_of
from runtime.containers.container import Container
from runtime.containers.spec import ContainerSpec, ExecSpec
from runtime.sandbox import defaults


def exec_process(container: Container, spec: ExecSpec, size: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    """The process's environment, user and directory are the container's own where the spec says nothing."""
    own, image = container.spec, container.image_config
    user = spec.user if spec.user is not None else own.user if own.user is not None else image.user
    privileged = own.privileged or spec.privileged
    merged = ContainerSpec(image=own.image, env=(*own.env, *spec.env), tty=spec.tty)
    hostname = hostname_of(own, container.id)
    process: dict[str, Any] = {
        "args": list(spec.argv),
        "env": list(environment_of(merged, image, hostname)),
        "cwd": spec.working_dir or own.working_dir or image.working_dir or "/",
        "terminal": spec.tty,
        "user": {"username": user or "0", "additionalGids": list(own.groups)},
        "capabilities": defaults.capability_sets(capabilities(own.cap_add, own.cap_drop, privileged)),
        "noNewPrivileges": own.no_new_privileges and not spec.privileged,
    }
    if spec.tty and all(size):
        process["consoleSize"] = {"height": size[0], "width": size[1]}
    return process


def start_exec(
    container: Container,
    connection: Connection,
    spec: ExecSpec,
    *,
    seccomp: str,
    detach: bool,
    size: tuple[int, int],
) -> Connection:
    """Ask the shim; a refusal closes the connection."""
    try:
        process = exec_process(container, spec, size)
        connection.ask("exec", process=process, stdin=spec.stdin, detach=detach, seccomp=seccomp)
    except BaseException:
        connection.close()
        raise
    return connection
