"""What tests share. Fakes implement the same Protocol as the real thing."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def shared_data(relative: str) -> Path:
    """Reference data kept beside the repository in `../shared`; the test is skipped where a checkout has none."""
    path = REPOSITORY.parent / "shared" / relative
    if not path.exists():
        pytest.skip(f"no reference data at ../shared/{relative}")
    return path
