"""A stage while its instructions are gone through: the root so far, the variables, the config so far.

The one mutable thing of lowering; `instructions.py` changes it, `lower` reads the result. The variables are ENV and ARG
together in the order they were set, later ones win (FEATURES A-31); the config has ENV only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.dockerfile.ast import Argument
from builder.graph import Instruction, Vertex
from registry_client.oci.config import ContainerConfig, ImageConfig
from registry_client.oci.platform import Platform
from registry_client.values import replace

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")


class StageState:
    """What `FROM thisstage` would hand on.

    `config` lacks what grows instruction by instruction (environment, labels, ports, volumes): copying that for each would
    take time by the square of their number. `finished` is the whole.
    """

    __slots__ = (
        "_env", "_labels", "arguments", "author", "base", "base_config", "command_set", "complete", "config", "history",
        "platform", "ports", "root", "variables", "volumes", "workdir_set",
    )  # fmt: skip

    def __init__(
        self,
        platform: Platform,
        base: Vertex,
        base_config: ImageConfig | None,
        root: Vertex,
        config: ContainerConfig,
        author: str = "",
    ) -> None:
        self.platform, self.base, self.base_config, self.root = platform, base, base_config, root
        self.config = replace(config, env=(), labels={}, exposed_ports=(), volumes=())
        self._env: tuple[str, ...] | dict[str, str] = config.env  # by name once ENV changed it
        self._labels = dict(config.labels)
        self.ports, self.volumes = set(config.exposed_ports), set(config.volumes)
        self.author = author
        self.variables = _variables(config)
        self.arguments: list[Argument] = []  # declared in the stage and in those it is FROM
        self.history: list[Instruction] = []
        self.command_set = False  # CMD in this very stage
        self.workdir_set = False
        self.complete = True  # False: the base image is not known, and so neither is what it sets

    def change(self, **fields: Any) -> None:
        """Set fields of the container config."""
        self.config = replace(self.config, **fields)

    def set_environment(self, name: str, value: str) -> None:
        """ENV: for the config, and for what follows."""
        if isinstance(self._env, tuple):
            self._env = {entry.partition("=")[0]: entry for entry in self._env}
        self._env[name] = f"{name}={value}"
        self.variables[name] = value

    def set_labels(self, labels: Mapping[str, str]) -> None:
        self._labels.update(labels)

    def finished(self) -> ContainerConfig:
        """The config as it is now."""
        env = self._env if isinstance(self._env, tuple) else tuple(self._env.values())
        return replace(
            self.config,
            env=env,
            labels=dict(self._labels),
            exposed_ports=tuple(sorted(self.ports)),
            volumes=tuple(sorted(self.volumes)),
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
        return clean_path("/", self.config.working_dir or "/")

    @property
    def shell(self) -> tuple[str, ...]:
        return self.config.shell or DEFAULT_SHELL

    def inherited(self) -> StageState:
        """The state a stage that is FROM this one begins with: ONBUILD is spent, CMD counts as inherited.

        ARGs go on, but ENV is set afresh over them, as if it came from an image.
        """
        config = replace(self.finished(), on_build=())
        state = StageState(self.platform, self.base, self.base_config, self.root, config, self.author)
        state.variables = {**self.variables, **_variables(config)}
        state.arguments, state.history = list(self.arguments), list(self.history)
        state.workdir_set, state.complete = self.workdir_set, self.complete
        return state


def fresh_state(platform: Platform, base: Vertex, config: ImageConfig | None) -> StageState:
    """The state right after FROM an image or scratch."""
    container = replace(config.config, on_build=()) if config else ContainerConfig(working_dir="/")
    names = {entry.partition("=")[0] for entry in container.env}
    if "PATH" not in names and platform.os != "windows":
        container = replace(container, env=(*container.env, f"PATH={DEFAULT_PATH}"))
    if container.working_dir:
        container = replace(container, working_dir=clean_path("/", container.working_dir))
    author = config.author if config else ""
    return StageState(platform, base, config, base, container, author)


def _variables(config: ContainerConfig) -> dict[str, str]:
    return {name: value for name, _, value in (entry.partition("=") for entry in config.env)}


def clean_path(directory: str, path: str) -> str:
    """`path` seen from `directory`, absolute and without `.` and `..`."""
    import posixpath

    return "/" + posixpath.normpath(posixpath.join("/", directory, path)).lstrip("/")
