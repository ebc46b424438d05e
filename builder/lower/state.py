"""A stage while its instructions are gone through: the root so far, the variables, the config so far.

The one mutable thing of lowering; `instructions.py` changes it, `lower` reads the result. The variables are ENV and ARG
together in the order they were set, later ones win (FEATURES A-31); the config has ENV only.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from builder.dockerfile.ast import Argument
from builder.graph import Instruction, Vertex
from registry_client.oci.config import ContainerConfig, ImageConfig
from registry_client.oci.platform import Platform
from registry_client.values import replace as replace_value

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")


@dataclass(slots=True)
class StageState:
    """What `FROM thisstage` would hand on. `config` alone is not whole: `finished_config` is."""

    platform: Platform
    base: Vertex
    base_config: ImageConfig | None
    root: Vertex
    config: ContainerConfig  # without what is gathered below: one more of many costs no copy of all
    author: str = ""
    environment: dict[str, str] = field(default_factory=dict)  # ENV only: name -> NAME=VALUE
    labels: dict[str, str] = field(default_factory=dict)
    ports: set[str] = field(default_factory=set)
    volumes: set[str] = field(default_factory=set)
    triggers: list[str] = field(default_factory=list)  # of ONBUILD
    variables: dict[str, str] = field(default_factory=dict)
    arguments: list[Argument] = field(default_factory=list)  # declared in the stage and in those it is FROM
    history: list[Instruction] = field(default_factory=list)
    command_set: bool = False  # CMD in this very stage
    workdir_set: bool = False
    complete: bool = True  # False: the base image is not known, and so neither is what it sets

    def change(self, **fields: Any) -> None:
        """Set fields of the container config."""
        self.config = replace_value(self.config, **fields)

    def finished_config(self) -> ContainerConfig:
        """The container config with all that was gathered."""
        return replace_value(
            self.config,
            env=tuple(self.environment.values()),
            labels=dict(self.labels),
            exposed_ports=tuple(sorted(self.ports)),
            volumes=tuple(sorted(self.volumes)),
            on_build=tuple(self.triggers),
        )

    def record(self, created_by: str, vertex: Vertex | None = None) -> None:
        """One history entry; with a vertex it has a layer."""
        text = created_by.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        self.history.append(Instruction(created_by=text, vertex=vertex))

    def grow(self, vertex: Vertex, created_by: str) -> None:
        self.root = vertex
        self.record(created_by, vertex)

    @property
    def directory(self) -> str:
        return self.config.working_dir or "/"

    @property
    def shell(self) -> tuple[str, ...]:
        return self.config.shell or DEFAULT_SHELL

    def inherited(self) -> StageState:
        """The state a stage that is FROM this one begins with: ONBUILD is spent, CMD counts as inherited.

        ARGs go on, but ENV is set afresh over them, as if it came from an image.
        """
        return replace(
            self,
            environment=dict(self.environment),
            labels=dict(self.labels),
            ports=set(self.ports),
            volumes=set(self.volumes),
            triggers=[],
            variables={**self.variables, **_variables(self.environment)},
            arguments=list(self.arguments),
            history=list(self.history),
            command_set=False,
        )


def fresh_state(platform: Platform, base: Vertex, config: ImageConfig | None) -> StageState:
    """The state right after FROM an image or scratch."""
    container = config.config if config else ContainerConfig(working_dir="/")
    environment = {entry.partition("=")[0]: entry for entry in container.env}
    if "PATH" not in environment and platform.os != "windows":
        environment["PATH"] = f"PATH={DEFAULT_PATH}"
    if container.working_dir:
        container = replace_value(container, working_dir=clean_path("/", container.working_dir))
    return StageState(
        platform, base, config, base, container,
        author=config.author if config else "",
        environment=environment,
        labels=dict(container.labels),
        ports=set(container.exposed_ports),
        volumes=set(container.volumes),
        variables=_variables(environment),
    )  # fmt: skip


def _variables(environment: dict[str, str]) -> dict[str, str]:
    return {name: entry.partition("=")[2] for name, entry in environment.items()}


def clean_path(directory: str, path: str) -> str:
    """`path` seen from `directory`, absolute and without `.` and `..`."""
    import posixpath

    return "/" + posixpath.normpath(posixpath.join("/", directory, path)).lstrip("/")
