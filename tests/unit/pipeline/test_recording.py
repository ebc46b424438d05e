"""What builds are called. The names are those `docker buildx history ls` (buildx 0.29) shows for the same builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.request import BuildRequest
from pipeline.recording import name_of, new_id


@pytest.mark.parametrize(
    ("context", "dockerfile", "target", "name"),
    [
        ("bake", None, "", "bake"),
        ("bake", "bake/Clean", "", "bake/Clean"),
        ("bake", None, "base", "bake (base)"),
        ("-", None, "base", "base"),
        ("-", None, "", ""),
        ("o/ctx-dest", "o/Dockerfile.docker", "", "o/Dockerfile.docker"),
        ("o/ctx", "o/Dockerfile", "", "o"),
        ("app", "app/sub/Dockerfile", "", "app/sub"),
        ("https://me:token@example.org/a.git#main", None, "", "https://example.org/a.git#main"),
    ],
)
def test_a_build_has_the_name_that_buildx_gives_it(
    context: str,
    dockerfile: str | None,
    target: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert name_of(BuildRequest(context=context, dockerfile=dockerfile, target=target)) == name


def test_an_argument_names_a_build() -> None:
    assert name_of(BuildRequest(target="t", build_args={"BUILDKIT_BUILD_NAME": "hello"})) == "hello"


def test_ids_sort_by_time_and_are_as_long_as_dockers() -> None:
    ids = [new_id(1_700_000_000_000_000_000 + step) for step in (0, 1, 36, 10**9, 10**18)]
    assert sorted(ids) == ids
    assert {len(each) for each in ids} == {25}
