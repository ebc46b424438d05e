"""`--chmod` as chmod(1) understands it; the symbolic cases were checked against GNU chmod with umask 0."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from builder.operations.modes import parse_mode
from runtime.errors import InvalidInput

SYMBOLIC = [
    "u=rwX,go=rX",
    "+x",
    "a-w",
    "g=u",
    "o=",
    "u+s,g+s",
    "+t",
    "go-rwx",
    "u=g",
    "a=rw",
    "u-x+w",
    "=r",
    "g+X",
]


@pytest.mark.parametrize("text", SYMBOLIC)
@pytest.mark.parametrize("mode", [0o644, 0o755, 0o600, 0o4711])
@pytest.mark.parametrize("is_directory", [False, True])
def test_symbolic_modes_agree_with_gnu_chmod(
    tmp_path: Path, text: str, mode: int, is_directory: bool
) -> None:
    place = tmp_path / "x"
    place.mkdir() if is_directory else place.touch()
    place.chmod(mode)
    subprocess.run(["chmod", "--", text, str(place)], check=True, umask=0)
    assert oct(parse_mode(text)(mode, is_directory)) == oct(os.stat(place).st_mode & 0o7777)


def test_octal_modes_are_taken_as_they_are() -> None:
    assert parse_mode("0755")(0o600, False) == 0o755
    assert parse_mode("4750")(0o600, True) == 0o4750


@pytest.mark.parametrize("text", ["", "999", "17777", "u=q", "x", "u", "rwx", "u=rw g=r"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="chmod"):
        parse_mode(text)
