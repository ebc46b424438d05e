"""Stages in real containers: what they see, what becomes of them, and that nothing is left."""

from __future__ import annotations

import random
import re
import signal
import subprocess
from pathlib import Path

import pytest

from runtime.store.owners import is_alive
from tests.support.pipe_command import Project, end, wait_for_line

pytestmark = pytest.mark.linux


def test_the_command_that_failed_is_named_with_its_line(project: Project) -> None:
    project.write("""
        stages:
          bad:
            image: box
            run: |
              echo one
              if true; then
                echo two
              fi
              cat /nonexistent
              echo never
            after: echo after anyway
          next: {image: box, needs: [bad], run: "true"}
        """)
    done = project.pipe("test", code=1)
    assert "pipe.yaml:13:1: stage bad: exit 1: cat /nonexistent" in done.err
    assert ">>>" in done.err
    assert "can't open '/nonexistent'" in done.err
    assert "after anyway" in done.err
    assert "stage next: bad failed" in done.out
    assert "echo never" not in done.err.replace(">>>", "").split("pipe: ")[0]


def test_a_green_stage_is_cached_and_its_log_and_artifacts_are_there(
    project: Project, tmp_path: Path
) -> None:
    # `first`: `a` may be the beginning of the id of some run of this store.
    project.write("""
        stages:
          first:
            image: box
            run:
              - echo hello from the stage
              - echo "version=1.2" >> $PIPE_OUTPUT
              - mkdir -p /out && echo data > /out/file && ln -s file /out/link
              - echo '<testsuite><testcase name="t" classname="c"/></testsuite>' > /reports/u.xml
            artifacts: [/out]
            reports: {junit: /reports/*.xml}
          b: {image: box, run: 'test "$V" = 1.2 && cat /out/file', env: {V: "${stages.first.outputs.version}"}, needs: [{stage: first, artifacts: true}]}
        """)
    first = project.pipe("test")
    assert "tests: 1 passed" in first.out
    second = project.pipe("test")
    assert "2 stages cached" in second.out
    assert "hello from the stage" in second.err
    assert "hello from the stage" in project.pipe("logs", "first").out
    assert "/out/file" in project.pipe("artifacts", "ls").out
    project.pipe("artifacts", "get", "first", "/out/**", "-o", str(tmp_path / "got"))
    assert (tmp_path / "got/out/file").read_text() == "data\n"
    assert (tmp_path / "got/out/link").readlink() == Path("file")


def test_a_service_is_reached_by_its_name_when_it_is_healthy(project: Project) -> None:
    project.write("""
        stages:
          a:
            image: box
            run: test "$(wget -q -O - http://web:8080/page)" = works
            services:
              web:
                image: box
                command: ["sh", "-c", "mkdir /www; sleep 0.5; echo works > /www/page; exec httpd -f -p 8080 -h /www"]
                healthcheck: {test: "wget -q -O /dev/null http://127.0.0.1:8080/page", interval: 1s, start_period: 30s, start_interval: 100ms}
        """)
    project.pipe("test")
    assert project.containers() == []


def test_a_service_that_dies_fails_the_stage_and_shows_why(project: Project) -> None:
    project.write("""
        stages:
          a:
            image: box
            run: "true"
            services:
              db: {image: box, command: ["sh", "-c", "echo cannot bind >&2; exit 4"], healthcheck: {test: "false", interval: 60s}}
        """)
    done = project.pipe("test", code=1)
    assert "service `db` exited with 4" in done.err
    assert "cannot bind" in done.err
    assert project.containers() == []


def test_the_work_tree_is_seen_and_not_changed(project: Project) -> None:
    (project.directory / "file").write_text("original\n")
    project.write("""
        stages:
          a:
            image: box
            checkout: true
            run:
              - test "$PWD" = /src && grep -q original file
              - echo changed > file && rm Dockerfile && mkdir new
        """)
    project.pipe("test")
    assert (project.directory / "file").read_text() == "original\n"
    assert (project.directory / "Dockerfile").exists()
    assert not (project.directory / "new").exists()


def test_a_secret_is_a_file_in_memory_and_never_shown(project: Project) -> None:
    project.variables["TOK"] = "very-s3cret-value"
    project.write("""
        secrets: {token: {env: TOK}}
        stages:
          a:
            image: box
            user: "1000"
            secrets: [token, {secret: token, env: TOKEN}]
            run:
              - cat /run/secrets/token; echo; echo "$TOKEN" | base64
              - grep ' /run/secrets/token ' /proc/self/mountinfo | grep -q tmpfs
              - if echo x > /run/secrets/token; then exit 9; fi
              - tr '\\0' '\\n' < /proc/1/environ | grep -q '^PIPE=' && if grep -q s3cret /proc/1/environ; then exit 8; fi
        """)
    done = project.pipe("test")
    assert "***" in done.err
    shown = done.text + project.pipe("logs").out
    assert "very-s3cret" not in shown and "dmVyeS1zM2NyZX" not in shown
    raw = b"".join(path.read_bytes() for path in (project.store / "runs").rglob("*") if path.is_file())
    assert b"very-s3cret" not in raw
    assert not [path for path in project.store.glob("pipe.db*") if b"very-s3cret" in path.read_bytes()]


def test_a_stage_that_takes_too_long_may_still_end_in_order(project: Project) -> None:
    project.write("""
        stages:
          a: {image: box, run: sleep 600, after: echo tidied up, timeout: 2s}
        """)
    done = project.pipe("test", code=4)
    assert "stage a: no end after 2 s" in done.err
    assert "tidied up" in done.err
    assert project.containers() == []


def test_a_stage_without_a_script_is_the_images_own_command(project: Project) -> None:
    project.write("""
        stages:
          a: {image: box, command: [sh, -c, "echo own $$0 $$PIPE_STAGE", word]}
        """)
    assert "own word a" in project.pipe("test").err


def test_a_memory_hog_is_killed_and_it_is_said(project: Project) -> None:
    project.write("""
        stages:
          a: {image: box, command: [tail, /dev/zero], mem_limit: 16m, memswap_limit: 16m}
        """)
    done = project.pipe("test", code=1)
    assert "exit 137 (out of memory)" in done.err


SLEEPER = """
    stages:
      first: {image: box, run: cat /proc/sys/kernel/random/uuid, cache: false}
      second:
        image: box
        needs: [first]
        run: "echo second has started; %s"
        services: {db: {image: box, command: sleep 1000}}
        volumes: ["data:/data"]
    """


def test_ctrl_c_stops_everything_and_exits_130(project: Project) -> None:
    project.write(SLEEPER % "sleep 600")
    process = project.start("test")
    wait_for_line(process, "$ echo second has started")
    code, out = end(process, signal.SIGINT)
    assert code == 130, out
    assert "was cancelled" in out
    assert project.containers() == []
    assert project.left() == []


def test_after_a_kill_the_run_is_resumed_and_nothing_is_left(project: Project) -> None:
    project.write(SLEEPER % "sleep 600")
    process = project.start("test")
    seen = wait_for_line(process, "$ echo second has started")
    end(process, signal.SIGKILL)
    uuid = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", seen)
    assert uuid is not None
    assert "interrupted" in project.pipe("runs", "-n", "1").out
    project.write(SLEEPER % "true")
    resumed = project.pipe("resume")
    assert uuid[0] in resumed.err  # replayed, not run again
    assert "1 stage cached, 1 stage done" in resumed.out
    assert project.containers() == []
    assert project.left() == []


def test_two_runs_at_once_do_not_disturb_each_other(project: Project) -> None:
    project.write("""
        stages:
          a: {image: box, cache: false, run: "wget -q -O - http://web:80/ || true; sleep 0.3", services: {web: {image: box, command: sleep 100}}}
        """)
    processes = [project.start("test") for _ in range(3)]
    outs = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], "\n".join(outs)
    assert project.containers() == []


def test_the_log_of_a_running_stage_can_be_followed(project: Project) -> None:
    project.write("""
        stages:
          a: {image: box, run: [echo first line, "until [ -e /src/go ]; do sleep 0.1; done", echo last line], volumes: ["./:/src"]}
        """)
    process = project.start("test")
    wait_for_line(process, "first line")
    follower = project.start("logs", "-f", "a")
    seen = wait_for_line(follower, "first line")
    (project.directory / "go").touch()
    rest, _ = follower.communicate(timeout=180)
    process.communicate(timeout=180)
    assert (process.returncode, follower.returncode) == (0, 0)
    assert "last line" in rest and "last line" not in seen


def kill_at_random_moments(project: Project, times: int) -> None:
    project.write("""
        stages:
          one: {image: box, run: "head -c 100000 /dev/urandom | md5sum", services: {db: {image: box, command: sleep 100}}}
          two: {image: box, cache: false, needs: [one], run: cat /run/secrets/s > /dev/null, secrets: {s: {env: S}}, volumes: ["v:/v"]}
        """)
    project.variables["S"] = "a-secret-value"
    rng = random.Random(times)
    for _ in range(times):
        process = project.start("test", "--no-cache")
        try:
            process.communicate(timeout=rng.uniform(0.05, 2.5))
        except subprocess.TimeoutExpired:
            end(process)
    project.pipe("test")
    assert project.containers() == []
    assert project.left() == []
    assert not [
        path
        for path in Path("/dev/shm").glob("pipe-secrets-*")
        if not is_alive(path.name[len("pipe-secrets-") :])
    ]


def test_kills_at_random_moments_leave_nothing(project: Project) -> None:
    kill_at_random_moments(project, 4)


@pytest.mark.slow
def test_many_kills_at_random_moments_leave_nothing(project: Project) -> None:
    kill_at_random_moments(project, 40)
