"""Times that are told from outside: SOURCE_DATE_EPOCH and rewrite-timestamp (FEATURES A-98 … A-100, K-24)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.linux.builder.test_contexts import Server, repository, server, tar_of  # noqa: F401  fixtures
from tests.support.builder import build, busybox_context, config_of, layers_of, run_pipe, tree_of, write_files

pytestmark = pytest.mark.linux

EPOCH = 1_400_000_000
STAMP = "2014-05-13T16:53:20Z"
ENVIRONMENT = {"SOURCE_DATE_EPOCH": str(EPOCH)}
REWRITE = ("-o", "type=image,rewrite-timestamp=true")
DOCKERFILE = """FROM base:1
WORKDIR /srv/deep/app
COPY data made/on/the/way/
RUN mkdir new && echo x > new/file && touch -d @1000000000 new/old
COPY --link data /linked/
COPY <<FILE /inline
text
FILE
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = write_files(
        tmp_path / "context", {"Dockerfile": DOCKERFILE, "data/one": "1", "data/two": "2"}
    )
    os.utime(directory / "data/two", (1_300_000_000, 1_300_000_000))
    return directory


def test_config_and_history_carry_the_epoch(root: Path, context: Path) -> None:
    config = config_of(root, build(root, context, env=ENVIRONMENT))
    base = config_of(root, "base:1")
    assert config["created"] == STAMP
    own = config["history"][len(base["history"]) :]
    assert own and {each["created"] for each in own} == {STAMP}
    # What the base says of itself stays.
    assert config["history"][: len(base["history"])] == base["history"]


def test_directories_made_on_the_way_carry_the_epoch_and_never_1970(root: Path, context: Path) -> None:
    with_epoch = layers_of(root, build(root, context, env=ENVIRONMENT))
    made = [
        member
        for layer in with_epoch
        for name, member in layer.items()
        if name in ("srv/deep", "srv/deep/app/made")
    ]
    assert made and {member.mtime for member in made if member.name.endswith("deep")} == {EPOCH}
    without = layers_of(root, build(root, context))
    assert all(member.mtime > 10**8 for layer in without for member in layer.values())


def test_layers_of_a_build_without_an_epoch_are_not_taken_for_one_with_it(
    root: Path, context: Path, tmp_path: Path
) -> None:
    write_files(context, {"own": str(tmp_path)})  # no other test's records
    (context / "Dockerfile").write_text("FROM base:1\nWORKDIR /w/x\nCOPY own /made/here/\n")
    build(root, context)
    after_another = build(root, context, env=ENVIRONMENT)
    fresh = build(root, context, "--no-cache", env=ENVIRONMENT)
    assert after_another == fresh


def test_a_run_that_does_not_ask_for_the_epoch_is_not_run_again_for_it(root: Path, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM base:1\nRUN echo quiet > /quiet\n")
    build(root, context)
    done = run_pipe(root, "build", str(context), env=ENVIRONMENT)
    assert b"CACHED" in done.stdout + done.stderr
    (context / "Dockerfile").write_text(
        "FROM base:1\nARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /asked\n"
    )
    layer = layers_of(root, build(root, context, env=ENVIRONMENT))[-1]
    assert layer["asked"].size == len(f"{EPOCH}\n")


def test_rewriting_sets_later_times_in_new_layers_only(root: Path, context: Path) -> None:
    image = build(root, context, *REWRITE, env=ENVIRONMENT)
    layers, base = layers_of(root, image), layers_of(root, "base:1")
    assert [{n: m.mtime for n, m in layer.items()} for layer in layers[: len(base)]] == [
        {n: m.mtime for n, m in layer.items()} for layer in base
    ]
    new = [member for layer in layers[len(base) :] for member in layer.values()]
    assert new and max(member.mtime for member in new) == EPOCH
    times = {member.name: member.mtime for member in new}
    assert times["srv/deep/app/new/old"] == 1_000_000_000
    assert times["srv/deep/app/made/on/the/way/two"] == 1_300_000_000


def test_equal_inputs_and_epoch_give_equal_images_whatever_the_store_held(
    root: Path, context: Path, tmp_path: Path
) -> None:
    first = build(root, context, *REWRITE, env=ENVIRONMENT)
    moved = tmp_path / "elsewhere" / "copy"
    shutil.copytree(context, moved)
    assert build(root, moved, "--no-cache", *REWRITE, env=ENVIRONMENT) == first
    # An older time is kept, so it counts.
    os.utime(moved / "data/two", (1_200_000_000, 1_200_000_000))
    changed = build(root, moved, *REWRITE, env=ENVIRONMENT)
    assert changed != first
    assert build(root, moved, "--no-cache", *REWRITE, env=ENVIRONMENT) == changed


def test_local_and_tar_outputs_carry_no_later_time(root: Path, context: Path, tmp_path: Path) -> None:
    found = tree_of(root, context, env=ENVIRONMENT)
    assert found["srv/deep/app/new/file"].mtime == EPOCH
    assert max(member.mtime for member in found.values()) == EPOCH
    build(root, context, "-o", str(tmp_path / "out"), env=ENVIRONMENT)
    for directory, names, files in os.walk(tmp_path / "out"):
        for name in (*names, *files):
            assert os.lstat(os.path.join(directory, name)).st_mtime <= EPOCH, name


def test_a_global_arg_gives_the_time(root: Path, context: Path) -> None:
    (context / "Dockerfile").write_text(f"ARG SOURCE_DATE_EPOCH={EPOCH}\nFROM base:1\nRUN true\n")
    assert config_of(root, build(root, context))["created"] == STAMP
    other = build(root, context, "--build-arg", "SOURCE_DATE_EPOCH=1")
    assert config_of(root, other)["created"] == "1970-01-01T00:00:01Z"


def test_context_of_a_directory_sets_nothing(root: Path, context: Path) -> None:
    (context / "Dockerfile").write_text(
        'ARG SOURCE_DATE_EPOCH=context\nFROM base:1\nARG SOURCE_DATE_EPOCH\nRUN echo "[$SOURCE_DATE_EPOCH]" > /said\n'
    )
    image = build(root, context)
    assert config_of(root, image)["created"] > "2020"
    assert layers_of(root, image)[-1]["said"].size == len("[]\n")


def test_context_of_a_repository_is_the_commit(root: Path, repository: str) -> None:  # noqa: F811
    done = run_pipe(root, "build", "-q", "--build-arg", "SOURCE_DATE_EPOCH=context", f"{repository}#v1:sub")
    created = config_of(root, done.stdout.decode().strip())["created"]
    assert created == "2001-09-09T01:46:40Z"


def test_a_stage_that_adds_one_url_gives_its_time(root: Path, context: Path, server: Server) -> None:  # noqa: F811
    server.files["/src.txt"] = b"source"
    (context / "Dockerfile").write_text(
        f"FROM scratch AS src\nADD {server.url}/src.txt /\nFROM base:1\nCOPY --from=src / /\n"
    )
    image = build(root, context, "--build-arg", "SOURCE_DATE_EPOCH=src")
    assert config_of(root, image)["created"] == "2015-01-01T00:00:00Z"


def test_rewriting_without_a_time_is_refused(root: Path, context: Path) -> None:
    done = run_pipe(root, "build", *REWRITE, str(context), code=2)
    assert b"rewrite-timestamp needs a time" in done.stderr


def test_another_store_makes_the_same_image(root: Path, fresh_root: Path, tmp_path: Path) -> None:
    context = busybox_context(
        tmp_path / "c",
        {
            "Dockerfile": 'FROM scratch\nCOPY busybox /bin/\nRUN ["/bin/busybox", "mkdir", "/a"]\nWORKDIR /b/c\n'
        },
    )
    first = build(root, context, *REWRITE, env=ENVIRONMENT)
    assert build(fresh_root, context, *REWRITE, env={**ENVIRONMENT, "TZ": "Asia/Tokyo", "LANG": "C"}) == first
