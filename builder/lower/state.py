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

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")


@dataclass(slots=True)
class StageState:
    """What `FROM thisstage` would hand on."""

    platform: Platform
    base: Vertex
    base_config: ImageConfig | None
    root: Vertex
    config: ContainerConfig
    author: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    arguments: list[Argument] = field(default_factory=list)  # declared in the stage and in those it is FROM
    history: list[Instruction] = field(default_factory=list)
    command_set: bool = False  # CMD in this very stage
    workdir_set: bool = False
    complete: bool = True  # False: the base image is not known, and so neither is what it sets

    def change(self, **fields: Any) -> None:
        """Set fields of the container config."""
        self.config = replace(self.config, **fields)

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
            config=replace(self.config, on_build=()),
            variables={**self.variables, **_variables(self.config)},
            arguments=list(self.arguments),
            history=list(self.history),
            command_set=False,
        )


def fresh_state(platform: Platform, base: Vertex, config: ImageConfig | None) -> StageState:
    """The state right after FROM an image or scratch."""
    container = replace(config.config, on_build=()) if config else ContainerConfig(working_dir="/")
    names = {entry.partition("=")[0] for entry in container.env}
    if "PATH" not in names and platform.os != "windows":
        container = replace(container, env=(*container.env, f"PATH={DEFAULT_PATH}"))
    if container.working_dir:
        container = replace(container, working_dir=clean_path("/", container.working_dir))
    author = config.author if config else ""
    return StageState(platform, base, config, base, container, author, variables=_variables(container))


def _variables(config: ContainerConfig) -> dict[str, str]:
    return {name: value for name, _, value in (entry.partition("=") for entry in config.env)}


def clean_path(directory: str, path: str) -> str:
    """`path` seen from `directory`, absolute and without `.` and `..`."""
    import posixpath

    return "/" + posixpath.normpath(posixpath.join("/", directory, path)).lstrip("/")
