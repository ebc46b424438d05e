"""Imports point left only: linux < sandbox < registry_client < runtime < builder < pipeline < pipeline.cli (ARCHITECTURE.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("registry_client", "runtime", "builder", "pipeline")
FLOORS = (
    "runtime.linux",
    "runtime.sandbox",
    "registry_client",
    "runtime",
    "builder",
    "pipeline",
    "pipeline.cli",
)
# Four things have one home each.
ENVIRONMENT_HOME = ("pipeline/settings.py",)
FORK_HOME = ("runtime/sandbox/", "runtime/linux/")
FORKING = {"fork", "forkpty", "unshare", "setns"}


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def floor_of(module: str) -> int | None:
    best: tuple[int, int] | None = None
    for level, floor in enumerate(FLOORS):
        if (module == floor or module.startswith(floor + ".")) and (best is None or len(floor) > best[0]):
            best = (len(floor), level)
    return None if best is None else best[1]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_imports_point_left_only(path: Path) -> None:
    own = floor_of(module_name(path))
    assert own is not None
    upward = [name for name in imports(path) if (level := floor_of(name)) is not None and level > own]
    assert upward == []


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_one_home_for_environment_and_fork(path: Path) -> None:
    relative = path.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            if node.attr in ("environ", "environb", "getenv"):
                assert relative in ENVIRONMENT_HOME, f"{relative}:{node.lineno} reads the environment"
            if node.attr in FORKING:
                assert relative.startswith(FORK_HOME), f"{relative}:{node.lineno} calls os.{node.attr}"
