"""What runs again and what does not (FEATURES B-3…B-8, A-72, A-94)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.builder import (
    PROJECT,
    build,
    build_text,
    config_of,
    log_of,
    make_base,
    run_pipe,
    write_files,
)

pytestmark = pytest.mark.linux


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write_files(tmp_path / "c", {"a": "1", "b": "2"})


def steps(root: Path, context: Path, dockerfile: str, *arguments: str) -> dict[str, bool]:
    """Each step's text and whether it came from the cache."""
    log = log_of(root, context, "-f", "-", *arguments, stdin=dockerfile.encode())
    names, cached = {}, {}
    for line in log.splitlines():
        number, _, rest = line.partition(" ")
        if rest.startswith("["):
            names[number] = rest.partition("] ")[2]
        elif rest.startswith(("CACHED", "DONE")) and number in names:
            cached[names[number]] = rest.startswith("CACHED")
    return cached


def unique(tmp_path: Path) -> str:
    return f"RUN echo {tmp_path.name} > /unique"


def test_a_rebuild_is_cached_and_is_the_same_image(root: Path, context: Path, tmp_path: Path) -> None:
    dockerfile = f"FROM base:1\n{unique(tmp_path)}\nCOPY . /x\nRUN echo $RANDOM > /random\nLABEL a=b\n"
    first = build_text(root, context, dockerfile)
    assert build_text(root, context, dockerfile) == first
    assert all(
        cached for name, cached in steps(root, context, dockerfile).items() if not name.startswith("FROM")
    )


def test_metadata_never_runs_a_step_again(root: Path, context: Path, tmp_path: Path) -> None:
    plain = f"FROM base:1\n{unique(tmp_path)}\nRUN echo 2 > /two\n"
    build_text(root, context, plain)
    noisy = f'FROM base:1\nLABEL x=1\nEXPOSE 80\nMAINTAINER me\n{unique(tmp_path)}\nCMD ["a"]\nVOLUME /v\nSTOPSIGNAL 9\nENTRYPOINT ["b"]\nRUN echo 2 > /two\n'
    found = steps(root, context, noisy)
    assert found["RUN echo 2 > /two"]
    assert found[unique(tmp_path)]


@pytest.mark.parametrize("instruction", ["ENV A=1", "WORKDIR /tmp", "USER app", 'SHELL ["/bin/ash", "-c"]'])
def test_what_a_command_sees_runs_it_again(
    root: Path, context: Path, tmp_path: Path, instruction: str
) -> None:
    build_text(root, context, f"FROM base:1\n{unique(tmp_path)}\nUSER 0\nRUN true\n")
    changed = steps(root, context, f"FROM base:1\n{unique(tmp_path)}\n{instruction}\nRUN true\n")
    assert changed[unique(tmp_path)]
    assert not changed["RUN true"]


def test_touching_a_file_is_no_change_but_its_mode_is(root: Path, context: Path, tmp_path: Path) -> None:
    dockerfile = f"FROM base:1\n{unique(tmp_path)}\nCOPY a /a\n"
    build_text(root, context, dockerfile)
    os.utime(context / "a", (5, 5))
    os.chown(context / "a", 9, 9)
    assert steps(root, context, dockerfile)["COPY a /a"]
    (context / "a").chmod(0o600)
    assert not steps(root, context, dockerfile)["COPY a /a"]


def test_a_stage_rebuilt_to_the_same_files_keeps_what_comes_after(
    root: Path, context: Path, tmp_path: Path
) -> None:
    def dockerfile(salt: str) -> str:
        return f"""FROM base:1 AS made
RUN echo {salt} > /log && mkdir -p /out && echo same > /out/f && touch -d @1 /out/f /out
FROM base:1
{unique(tmp_path)}
COPY --from=made /out /out
RUN cat /out/f
"""

    build_text(root, context, dockerfile("one"))
    found = steps(root, context, dockerfile("two"))
    assert found["COPY --from=made /out /out"]
    assert found["RUN cat /out/f"]


def test_a_file_found_elsewhere_with_the_same_content_hits(root: Path, context: Path, tmp_path: Path) -> None:
    other = write_files(tmp_path / "d", {"sub/a": "1"})
    build_text(root, context, f"FROM base:1\n{unique(tmp_path)}\nCOPY a /x/\n")
    assert steps(root, other, f"FROM base:1\n{unique(tmp_path)}\nCOPY sub/a /x/\n")["COPY sub/a /x/"]


def test_no_cache_runs_all_and_its_results_are_found_next_time(
    root: Path, context: Path, tmp_path: Path
) -> None:
    dockerfile = f"FROM base:1\n{unique(tmp_path)}\nRUN echo $RANDOM$RANDOM > /random\n"
    first = build_text(root, context, dockerfile)
    second = build_text(root, context, dockerfile, "--no-cache")
    assert second != first
    assert build_text(root, context, dockerfile) == second


def test_no_cache_filter_runs_one_stage_again(root: Path, context: Path, tmp_path: Path) -> None:
    dockerfile = f"FROM base:1 AS one\n{unique(tmp_path)}\nRUN echo 1\nFROM base:1 AS two\nRUN echo {tmp_path.name}\nCOPY --from=one /unique /\n"
    build_text(root, context, dockerfile)
    found = steps(root, context, dockerfile, "--no-cache-filter", "one")
    assert not found["RUN echo 1"]
    assert found[f"RUN echo {tmp_path.name}"]


def test_a_linked_layer_moves_to_another_root_without_reading(
    root: Path, context: Path, tmp_path: Path
) -> None:
    dockerfile = "FROM base:1\nRUN echo {0} > /x\nCOPY --link a b /linked/\n"
    first = build_text(root, context, dockerfile.format(tmp_path.name))
    found = steps(root, context, dockerfile.format(tmp_path.name + "-2"))
    assert found["COPY --link a b /linked/"]
    second = build_text(root, context, dockerfile.format(tmp_path.name + "-2"))
    assert (
        config_of(root, first)["rootfs"]["diff_ids"][-1] == config_of(root, second)["rootfs"]["diff_ids"][-1]
    )
    assert first != second


def test_only_stages_the_target_needs_are_looked_at(root: Path, context: Path) -> None:
    dockerfile = "FROM nowhere.invalid/none:1 AS unused\nCOPY missing /\nFROM base:1\nCOPY a /a\n"
    build_text(root, context, dockerfile)


def test_an_unreadable_file_nobody_asks_for_is_never_opened(root: Path, context: Path) -> None:
    os.mkfifo(context / "pipe-that-would-block")
    build_text(root, context, "FROM base:1\nCOPY a /a\n")


def test_equal_builds_at_the_same_time_run_each_step_once(root: Path, context: Path, tmp_path: Path) -> None:
    name = tmp_path.name
    dockerfile = f"FROM base:1\nRUN --mount=type=cache,id=once-{name},target=/c echo x >> /c/runs && sleep 0.3 && echo $RANDOM > /r\nRUN echo $RANDOM > /s\n"
    (context / "Dockerfile").write_text(dockerfile)
    command = [sys.executable, "-m", "pipeline.cli.main", "--root", str(root), "build", "-q", str(context)]
    env = {"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]}
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, env=env) for _ in range(4)]
    answers = [each.communicate(timeout=240)[0] for each in running]
    assert all(each.returncode == 0 for each in running)
    assert len(set(answers)) == 1
    count = f"FROM base:1\nRUN --mount=type=cache,id=once-{name},target=/c echo runs: $(wc -l < /c/runs)\n"
    assert "runs: 1" in log_of(root, context, "-f", "-", stdin=count.encode())


def test_a_different_directory_and_store_give_the_same_image_under_an_epoch(tmp_path: Path) -> None:
    images = []
    for name in ("one", "two"):
        root, context = (
            tmp_path / name / "store",
            write_files(tmp_path / name / "c", {"d/a": "1", "run.sh": "x"}),
        )
        env = {"SOURCE_DATE_EPOCH": "1700000000"}
        make_base(root, tmp_path / name / "base")
        dockerfile = "FROM scratch\nCOPY . /new/place/\nWORKDIR /made/here\nCOPY <<x /x\nhi\nx\n"
        out = ("-o", "type=image,rewrite-timestamp=true")
        images.append(build_text(root, context, dockerfile, *out, env=env))
    assert images[0] == images[1]


def test_the_epoch_is_in_config_history_and_clamped_layers(root: Path, context: Path) -> None:
    dockerfile = "FROM scratch\nCOPY a /deep/er/a\nLABEL x=y\n"
    env = {"SOURCE_DATE_EPOCH": "1500000000"}
    image = build_text(root, context, dockerfile, "-o", "type=image,rewrite-timestamp=true", env=env)
    config = config_of(root, image)
    assert config["created"] == "2017-07-14T02:40:00Z"
    assert {entry["created"] for entry in config["history"]} == {"2017-07-14T02:40:00Z"}
    from tests.support.builder import layers_of

    assert {member.mtime for member in layers_of(root, image)[0].values()} == {1500000000}


def test_a_remembered_digest_saves_reading_and_a_changed_file_is_seen(root: Path, context: Path) -> None:
    for name in ("a", "b"):
        os.utime(context / name, (1000, 1000))
    dockerfile = "FROM base:1\nCOPY . /c\n"
    first = build_text(root, context, dockerfile)
    assert build_text(root, context, dockerfile) == first
    (context / "a").write_text("3")
    os.utime(context / "a", (1000, 1000))
    assert build_text(root, context, dockerfile) != first


def test_a_build_does_not_fail_on_an_empty_or_half_cleaned_store(fresh_root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {"a": "1", "Dockerfile": "FROM scratch\nCOPY a /a\n"})
    first = build(fresh_root, context)
    run_pipe(fresh_root, "build", "-q", str(context))
    import shutil

    shutil.rmtree(fresh_root / "snapshots")
    (fresh_root / "snapshots").mkdir()
    assert build(fresh_root, context) != ""
    assert first.startswith("sha256:")
