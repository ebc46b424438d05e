"""Runs with an engine in memory: order, skips, retries, limits, cache, secrets, resume."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.plan import Kind
from pipeline.results import Results
from runtime.errors import HostFault, StepFailed
from runtime.events import Output, Warned
from tests.support.pipeline import Behaviour, Bench, bench, by_stage, loaded

HEAD = "name: shop\nimages: {app: {}}\n"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


def shown(run: Bench, node: str) -> bytes:
    return b"".join(e.data for e in run.events if isinstance(e, Output) and e.node == node)


def test_images_are_built_before_the_stages_that_use_them(run: Bench, tmp_path: Path) -> None:
    result = run.run(loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x}}"))
    assert run.outcomes(result) == {"image/app": "done", "stage/a": "done"}
    assert run.engine.log[0] == "build app"
    assert result.nodes["stage/a"].image == result.nodes["image/app"].image


def test_a_stage_starts_the_moment_its_own_needs_are_done(run: Bench, tmp_path: Path) -> None:
    slow, quick = Behaviour(gate=threading.Event()), Behaviour()
    after_quick = Behaviour()
    run.engine.behave = by_stage(slow=slow, quick=quick, after=after_quick)
    text = (
        HEAD
        + "stages:\n  slow: {image: app, run: x}\n  quick: {image: app, run: x}\n  after: {image: app, needs: [quick], run: x}\n"
    )

    def release() -> None:
        # `after` must start while `slow` is still running: there is no barrier between levels.
        assert after_quick.started.wait(30)
        assert slow.gate is not None
        slow.gate.set()

    watcher = threading.Thread(target=release)
    watcher.start()
    result = run.run(loaded(tmp_path, text))
    watcher.join(30)
    assert set(run.outcomes(result).values()) == {"done"}


def test_what_needs_a_failed_stage_is_skipped_and_the_rest_goes_on(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(bad=Behaviour(code=3))
    text = (
        HEAD
        + "stages:\n  bad: {image: app, run: x}\n  after: {image: app, needs: [bad], run: x}\n  good: {image: app, run: x}\n"
    )
    result = run.run(loaded(tmp_path, text))
    assert run.outcomes(result)["stage/after"] == "skipped"
    assert result.nodes["stage/after"].error == "bad failed"
    assert run.outcomes(result)["stage/good"] == "done"
    assert (str(result.outcome), result.nodes["stage/bad"].exit_code) == ("failed", 3)


def test_no_more_than_the_jobs_run_at_once(run: Bench, tmp_path: Path) -> None:
    running, most, lock = [0], [0], threading.Lock()

    class Counting(Behaviour):
        pass

    def start(*_: object) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])

    real_start, real_remove = run.engine.start, run.engine.remove

    def counted_start(container_id: str, output: object = None) -> None:
        start()
        real_start(container_id, output)  # type: ignore[arg-type]

    def counted_remove(container_id: str, *, volumes: bool = True) -> None:
        with lock:
            running[0] -= 1
        real_remove(container_id, volumes=volumes)

    run.engine.start, run.engine.remove = counted_start, counted_remove  # type: ignore[method-assign]
    stages = "".join(f"  s{n}: {{image: app, run: x}}\n" for n in range(8))
    run.run(loaded(tmp_path, HEAD + "stages:\n" + stages), jobs=2)
    assert most[0] <= 2


def test_a_matrix_runs_every_combination_with_its_values(run: Bench, tmp_path: Path) -> None:
    text = (
        HEAD
        + "stages:\n  u: {image: app, matrix: {py: [3.10, '3.12']}, env: {V: 'v${matrix.py}'}, run: 'echo ${matrix.py}'}\n"
    )
    specs = []
    run.engine.behave = lambda spec: specs.append(spec) or Behaviour()  # type: ignore[func-returns-value]
    result = run.run(loaded(tmp_path, text))
    assert {"stage/u (3.10)", "stage/u (3.12)"} <= set(result.nodes)
    assert sorted(e for spec in specs for e in spec.env if e.startswith(("V=", "PIPE_MATRIX_PY="))) == [
        "PIPE_MATRIX_PY=3.10", "PIPE_MATRIX_PY=3.12", "V=v3.10", "V=v3.12",
    ]  # fmt: skip


def test_fail_fast_stops_the_other_combinations(run: Bench, tmp_path: Path) -> None:
    waiting = Behaviour(gate=threading.Event())
    run.engine.behave = lambda spec: Behaviour(code=1) if spec.labels["pipe.stage"] == "u (1)" else waiting
    text = HEAD + "stages: {u: {image: app, run: x, matrix: {n: [1, 2], fail_fast: true}}}\n"
    result = run.run(loaded(tmp_path, text))
    assert run.outcomes(result)["stage/u (1)"] == "failed"
    assert run.outcomes(result)["stage/u (2)"] in ("cancelled", "skipped")
    assert str(result.outcome) == "failed"


def attempts(codes: list[int]) -> object:
    left = list(codes)
    return lambda spec: Behaviour(code=left.pop(0))


def test_a_stage_is_tried_again_as_often_as_it_may(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = attempts([1, 1, 0])  # type: ignore[assignment]
    result = run.run(loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x, retry: 2}}"))
    assert (run.outcomes(result)["stage/a"], result.nodes["stage/a"].attempts) == ("done", 3)


def test_a_retry_for_other_exit_codes_does_not_count(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = attempts([1, 0])  # type: ignore[assignment]
    result = run.run(
        loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x, retry: {max: 2, exit_codes: [9]}}}")
    )
    assert (run.outcomes(result)["stage/a"], result.nodes["stage/a"].attempts) == ("failed", 1)


def test_a_stage_that_takes_too_long_is_told_to_end_and_says_timeout(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(a=Behaviour(gate=threading.Event()))
    result = run.run(loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x, timeout: 100ms}}"))
    assert (run.outcomes(result)["stage/a"], str(result.outcome)) == ("timeout", "timeout")
    assert any("kill -TERM -1" in line for line in run.engine.log)
    assert not run.engine.made


def test_an_allowed_failure_is_a_warning_and_what_needs_it_runs(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(a=Behaviour(code=7))
    text = (
        HEAD
        + "stages:\n  a: {image: app, run: x, allow_failure: true}\n  b: {image: app, needs: [a], run: x}\n"
    )
    result = run.run(loaded(tmp_path, text))
    assert (run.outcomes(result)["stage/a"], run.outcomes(result)["stage/b"]) == ("warning", "done")
    assert str(result.outcome) == "done"


def test_a_failure_that_is_not_the_allowed_one_is_a_failure(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(a=Behaviour(code=8))
    result = run.run(
        loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x, allow_failure: {exit_codes: 7}}}")
    )
    assert run.outcomes(result)["stage/a"] == "failed"


def test_the_hosts_fault_is_an_error_not_a_failure(run: Bench, tmp_path: Path) -> None:
    run.engine.build_error = HostFault("no space left")
    result = run.run(loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x}}"))
    assert (run.outcomes(result)["image/app"], str(result.outcome)) == ("error", "error")


def test_a_cancelled_run_kills_what_runs_and_starts_nothing_more(run: Bench, tmp_path: Path) -> None:
    waiting = Behaviour(gate=threading.Event())
    run.engine.behave = by_stage(a=waiting)
    text = HEAD + "stages:\n  a: {image: app, run: x}\n  b: {image: app, needs: [a], run: x}\n"

    def interrupt() -> None:
        assert waiting.started.wait(30)
        run.cancel.cancel("interrupted")

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = run.run(loaded(tmp_path, text))
    thread.join(30)
    assert run.outcomes(result) == {"image/app": "done", "stage/a": "cancelled", "stage/b": "cancelled"}
    assert str(result.outcome) == "cancelled"
    assert not run.engine.made


def test_outputs_reach_the_stages_that_use_them(run: Bench, tmp_path: Path) -> None:
    specs = {}

    def behave(spec: object) -> Behaviour:
        specs[spec.labels["pipe.stage"]] = spec  # type: ignore[attr-defined]
        return Behaviour(writes=b"version=1.2\n") if spec.labels["pipe.stage"] == "a" else Behaviour()  # type: ignore[attr-defined]

    run.engine.behave = behave
    text = (
        HEAD
        + "stages:\n  b: {image: app, run: 'echo ${stages.a.outputs.version}', env: {V: 'v${stages.a.outputs.version}'}}\n  a: {image: app, run: x}\n"
    )
    run.run(loaded(tmp_path, text))
    assert {"V=v1.2", "PIPE_STAGES_A_OUTPUTS_VERSION=1.2"} <= set(specs["b"].env)


def test_a_condition_on_an_output_is_decided_during_the_run(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(a=Behaviour(writes=b"go=no\n"))
    text = (
        HEAD
        + "stages:\n  a: {image: app, run: x}\n  b: {image: app, run: x, if: 'stages.a.outputs.go == \"yes\"'}\n"
    )
    result = run.run(loaded(tmp_path, text))
    assert run.outcomes(result)["stage/b"] == "skipped"


# --- results --------------------------------------------------------------------------------------------------------


def test_a_green_stage_is_not_run_again_and_its_output_is_replayed(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(a=Behaviour(output=(("stdout", b"hello\n"),), writes=b"v=1\n"))
    pipeline = loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x}}")
    run.run(pipeline)
    run.events.clear()
    again = run.run(pipeline)
    assert run.outcomes(again)["stage/a"] == "cached"
    assert again.nodes["stage/a"].outputs == (("v", "1"),)
    assert b"hello\n" in shown(run, "stage/a")
    assert sum(line.startswith("create") for line in run.engine.log) == 1


@pytest.mark.parametrize(
    "change",
    [
        HEAD + "stages: {a: {image: app, run: y}}",
        HEAD + "stages: {a: {image: app, run: x, env: {A: b}}}",
        HEAD + "stages: {a: {image: app, run: x, user: '1'}}",
        HEAD + "stages: {a: {image: app, run: x, services: {db: {image: r}}}}",
        HEAD + "stages: {a: {image: app, run: x, cache: false}}",
        HEAD + "stages: {a: {image: other, run: x}}",
    ],
)
def test_a_stage_runs_again_when_what_it_is_a_function_of_changed(
    run: Bench, tmp_path: Path, change: str
) -> None:
    run.run(loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x}}"))
    run.engine.behave = by_stage(db=Behaviour(runs_on=True))
    assert run.outcomes(run.run(loaded(tmp_path, change)))["stage/a"] == "done"


def test_a_changed_image_runs_its_stages_again(run: Bench, tmp_path: Path) -> None:
    pipeline = loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x}}")
    run.run(pipeline)
    run.engine.content["app"] = "new"
    assert run.outcomes(run.run(pipeline))["stage/a"] == "done"


def test_a_changed_work_tree_runs_the_stages_that_see_it(run: Bench, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "f").write_text("1")
    text = HEAD + "stages:\n  a: {image: app, run: x, checkout: true}\n  b: {image: app, run: x}\n"
    run.run(loaded(project, text))
    (project / "f").write_text("2")
    again = run.outcomes(run.run(loaded(project, text)))
    assert (again["stage/a"], again["stage/b"]) == ("done", "cached")


def test_a_stage_that_sees_the_host_is_never_cached(run: Bench, tmp_path: Path) -> None:
    pipeline = loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x, volumes: ['./d:/d']}}")
    run.run(pipeline)
    assert run.outcomes(run.run(pipeline))["stage/a"] == "done"


def test_without_cache_a_stage_runs_again(run: Bench, tmp_path: Path) -> None:
    pipeline = loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x}}")
    run.run(pipeline)
    assert run.outcomes(run.run(pipeline, cache=False))["stage/a"] == "done"


def test_a_failure_is_never_cached(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(a=Behaviour(code=1))
    pipeline = loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x}}")
    run.run(pipeline)
    assert run.outcomes(run.run(pipeline))["stage/a"] == "failed"


def test_reports_and_artifacts_are_kept_also_of_a_failure(run: Bench, tmp_path: Path) -> None:
    files = {
        "/r/u.xml": b'<testsuite><testcase name="t"><failure message="no"/></testcase></testsuite>',
        "/out/core": b"dump",
    }
    run.engine.behave = by_stage(a=Behaviour(code=1, files=files))
    text = (
        HEAD
        + "stages: {a: {image: app, run: x, reports: {junit: /r/*.xml}, artifacts: [/out/core, /out/none]}}"
    )
    node = run.run(loaded(tmp_path, text)).nodes["stage/a"]
    assert node.tests is not None and node.tests.failed == 1
    assert sorted(a.path for a in node.artifacts) == ["/out/core", "/r/u.xml"]
    warned = [e.message for e in run.events if isinstance(e, Warned)]
    assert "nothing matches /out/none" in warned
    assert any(message.startswith("t: no") for message in warned)


def test_artifacts_are_handed_to_the_stage_that_asks_for_them(run: Bench, tmp_path: Path) -> None:
    made = {}

    def behave(spec: object) -> Behaviour:
        return Behaviour(files={"/out/x": b"1"})

    real_create = run.engine.create

    def create(spec: object) -> str:
        container = real_create(spec)  # type: ignore[arg-type]
        made[spec.labels["pipe.stage"]] = run.engine.made[container]  # type: ignore[attr-defined]
        return container

    run.engine.behave, run.engine.create = behave, create  # type: ignore[assignment, method-assign]
    text = (
        HEAD
        + "stages:\n  a: {image: app, run: x, artifacts: [/out]}\n  b: {image: app, run: y, needs: [{stage: a, artifacts: true}]}\n"
    )
    run.run(loaded(tmp_path, text))
    assert made["b"].copied_in == [("/", ["out/x"])]


# --- services -------------------------------------------------------------------------------------------------------

SERVICE = HEAD + "stages: {a: {image: app, run: x, services: {db: {image: pg, wait: 30s}}}}"


def test_a_stage_starts_only_when_its_service_is_healthy(run: Bench, tmp_path: Path) -> None:
    db = Behaviour(runs_on=True, health="starting")
    run.engine.behave = by_stage(db=db)

    def heal() -> None:
        assert db.started.wait(30)
        assert not any(
            "-a-" in line and line.startswith("start") and "db" not in line for line in run.engine.log
        )
        db.health = "healthy"

    thread = threading.Thread(target=heal)
    thread.start()
    result = run.run(loaded(tmp_path, SERVICE))
    thread.join(30)
    assert run.outcomes(result)["stage/a"] == "done"
    assert not run.engine.made
    assert not run.engine.network_labels


@pytest.mark.parametrize(
    "behaviour", [Behaviour(code=4), Behaviour(runs_on=True, health="unhealthy")], ids=["dies", "unhealthy"]
)
def test_a_service_that_does_not_come_up_fails_the_stage_with_its_log(
    run: Bench, tmp_path: Path, behaviour: Behaviour
) -> None:
    behaviour.output = (("stderr", b"cannot bind\n"),)
    if behaviour.code:
        behaviour.health = "starting"  # never ready before it ends
    run.engine.behave = by_stage(db=behaviour)
    result = run.run(loaded(tmp_path, SERVICE))
    node = result.nodes["stage/a"]
    assert str(node.outcome) == "failed"
    assert "service `db`" in node.error
    assert isinstance(node.cause, StepFailed) and "cannot bind" in node.cause.output
    assert b"cannot bind" in shown(run, "stage/a/db")
    assert not run.engine.made


def test_a_service_that_never_becomes_healthy_is_a_timeout(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(db=Behaviour(runs_on=True, health="starting"))
    text = SERVICE.replace("30s", "200ms")
    assert run.outcomes(run.run(loaded(tmp_path, text)))["stage/a"] == "timeout"


def test_a_one_shot_service_is_done_before_what_waits_for_it(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(db=Behaviour(runs_on=True, health="healthy"))
    text = (
        HEAD
        + """stages:
  a:
    image: app
    run: x
    services:
      web: {image: w, depends_on: {migrate: {condition: service_completed_successfully}}}
      migrate: {image: m, depends_on: {db: {condition: service_healthy}}}
      db: {image: pg}
"""
    )
    run.run(loaded(tmp_path, text))
    log = [
        line.rsplit("-", 1)[-1]
        for line in run.engine.log
        if line.startswith(("start", "end"))
        and line.rsplit("-", 1)[-1].split()[0] in ("db", "migrate", "web")
    ]
    assert log.index("db") < log.index("migrate") < log.index("migrate 0") < log.index("web")


# --- secrets --------------------------------------------------------------------------------------------------------


def test_a_secret_reaches_the_container_and_nothing_else(run: Bench, tmp_path: Path) -> None:
    seen = {}

    def behave(spec: object) -> Behaviour:
        sources = {m.target: Path(m.source) for m in spec.mounts}  # type: ignore[attr-defined]
        path = sources["/run/secrets/token"]
        seen.update(file=path.read_bytes(), path=path, env=spec.env)  # type: ignore[attr-defined]
        seen["variable"] = sources["/run/secrets/.env/TOKEN"].read_bytes()
        return Behaviour(output=(("stdout", b"it is hunter2"), ("stdout", b"secret!\n")), code=1)

    run.engine.behave = behave
    text = (
        HEAD
        + "secrets: {token: {env: T}}\nstages: {a: {image: app, run: x, secrets: [token, {secret: token, env: TOKEN}]}}\n"
    )
    result = run.run(loaded(tmp_path, text, {"T": "hunter2secret"}))
    assert seen["file"] == seen["variable"] == b"hunter2secret"
    assert "hunter2secret" not in str(seen["env"])  # which any `inspect` shows
    assert not Path(str(seen["path"])).exists()
    assert b"it is ***!" in shown(run, "stage/a")
    assert "hunter2secret" not in run.journal_text()
    assert "hunter2secret" not in result.nodes["stage/a"].output
    raw = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert b"hunter2secret" not in raw


def test_a_secret_reaches_a_build(run: Bench, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("certificate")
    run.run(loaded(tmp_path, "images: {app: {secrets: {ca: {file: ca.pem}}}}\n"), Kind.IMAGE)
    assert run.engine.orders[0].secrets == {"ca": b"certificate"}


def test_a_missing_secret_fails_its_stage_with_the_place(run: Bench, tmp_path: Path) -> None:
    text = HEAD + "secrets: {token: {env: NOPE}}\nstages: {a: {image: app, run: x, secrets: [token]}}\n"
    node = run.run(loaded(tmp_path, text)).nodes["stage/a"]
    assert "the variable NOPE of secret `token` is not set" in node.error


def test_a_secret_from_a_command(run: Bench, tmp_path: Path) -> None:
    text = "secrets: {token: {command: [printf, from-a-command]}}\nimages: {app: {secrets: [token]}}\n"
    run.run(loaded(tmp_path, text), Kind.IMAGE)
    assert run.engine.orders[0].secrets == {"token": b"from-a-command"}


# --- resume and memory ----------------------------------------------------------------------------------------------


def test_a_resumed_run_repeats_nothing_that_was_green(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(b=Behaviour(code=1))
    text = (
        HEAD
        + "stages:\n  a: {image: app, run: x, cache: false}\n  b: {image: app, needs: [a], run: y, cache: false}\n"
    )
    pipeline = loaded(tmp_path, text)
    first = run.run(pipeline)
    assert str(first.outcome) == "failed"
    run.engine.behave = by_stage()
    again = run.run(pipeline, resume=first.id)
    assert run.outcomes(again) == {"image/app": "done", "stage/a": "cached", "stage/b": "done"}
    assert run.outcomes(run.run(pipeline))["stage/a"] == "done"  # another run is another run


def test_the_journal_has_every_event_and_result_of_a_run(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(a=Behaviour(output=(("stdout", b"hello\n"),)))
    result = run.run(loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x}}"))
    found = list(run.journal.events(result.id))
    assert [type(e) for e in found] == [type(e) for e in run.events]
    assert [e.data for e in found if isinstance(e, Output)] == [b"hello\n"]
    assert {name: str(r.outcome) for name, r in run.journal.results(result.id).items()} == run.outcomes(
        result
    )
    assert run.journal.find(result.id[-4:]).outcome == "done"


def test_a_journal_with_half_a_line_is_read_up_to_it_and_written_on(run: Bench, tmp_path: Path) -> None:
    from pipeline.event_log import EventLog

    result = run.run(loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x}}"))
    path = Path(run.journal.path(result.id)) / "events.jsonl"
    whole = len(list(run.journal.events(result.id)))
    with path.open("a") as file:
        file.write('{"event": "outp')
    assert len(list(run.journal.events(result.id))) == whole
    with EventLog(str(path.parent), lambda event: None) as log:
        log(Output(node="x", stream="stdout", data=b"more"))
    assert len(list(run.journal.events(result.id))) == whole + 1


def test_a_flood_of_output_keeps_its_beginning_and_its_end(
    run: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.event_log.NODE_LIMIT", 10_000)
    monkeypatch.setattr("pipeline.event_log._TAIL", 1_000)
    lines = tuple(("stdout", f"line {n} {'x' * 90}\n".encode()) for n in range(1000))
    run.engine.behave = by_stage(a=Behaviour(output=lines))
    result = run.run(loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x}}"))
    events = list(run.journal.events(result.id))
    text = b"".join(e.data for e in events if isinstance(e, Output))
    assert b"line 0 " in text and b"line 999 " in text and b"line 500 " not in text
    assert any("left out" in e.message for e in events if isinstance(e, Warned))


# --- what was tested is what is pushed ------------------------------------------------------------------------------

DEPLOY = HEAD + "stages: {a: {image: app, run: x}}\ndeploy: {p: {services: {web: {image: app}}}}\n"


def test_a_red_stage_blocks_push_and_deploy(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(a=Behaviour(code=1), web=Behaviour(runs_on=True))
    result = run.run(loaded(tmp_path, DEPLOY), Kind.DEPLOY, "p")
    assert run.outcomes(result)["push/app"] == run.outcomes(result)["deploy/p"] == "skipped"
    assert not any(line.startswith(("tag", "create shop-p")) for line in run.engine.log)


def test_the_very_image_that_was_tested_is_pushed_and_deployed(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(web=Behaviour(runs_on=True))
    result = run.run(loaded(tmp_path, DEPLOY), Kind.DEPLOY, "p")
    image = result.nodes["image/app"].image
    assert run.engine.tags["shop/app:latest"] == image == result.nodes["stage/a"].image
    assert next(iter(run.engine.containers({"com.docker.compose.service": "web"}))).image == image
    assert run.engine.log.count("build app") == 1


def test_a_registry_gets_the_image_under_all_its_tags(run: Bench, tmp_path: Path) -> None:
    text = DEPLOY.replace(
        "images: {app: {}}",
        "registry: reg.example.com/team\nimages: {app: {tags: ['1.0', 'feature/x', '${NONE}']}}",
    )
    run.engine.behave = by_stage(web=Behaviour(runs_on=True))
    run.run(loaded(tmp_path, text), Kind.DEPLOY, "p")
    assert run.engine.pushed == ["reg.example.com/team/app:1.0", "reg.example.com/team/app:feature-x"]


def test_without_tests_an_image_needs_an_earlier_green_run(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(web=Behaviour(runs_on=True))
    pipeline = loaded(tmp_path, DEPLOY)
    refused = run.run(pipeline, Kind.DEPLOY, "p", tests=False)
    assert "has no green run of `a`" in refused.nodes["push/app"].error
    assert not run.engine.made
    run.run(pipeline)
    assert run.outcomes(run.run(pipeline, Kind.DEPLOY, "p", tests=False))["deploy/p"] == "done"
    run.engine.content["app"] = "other"
    assert run.outcomes(run.run(pipeline, Kind.DEPLOY, "p", tests=False))["deploy/p"] == "skipped"


def test_a_stage_left_out_by_its_condition_does_not_block(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(web=Behaviour(runs_on=True))
    text = DEPLOY.replace("run: x}}", "run: x}, b: {image: app, run: y, if: 'NO'}}")
    assert run.outcomes(run.run(loaded(tmp_path, text), Kind.DEPLOY, "p"))["deploy/p"] == "done"


def test_verified_images_are_remembered_by_stage(run: Bench, tmp_path: Path) -> None:
    result = run.run(loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x}}"))
    assert Results(run.store.db).verified("shop", result.nodes["image/app"].image) == {"a"}


def test_a_stage_that_runs_again_says_what_changed(run: Bench, tmp_path: Path) -> None:
    run.run(loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x, env: {A: 1}}}"))
    run.engine.content["app"] = "new"
    again = run.run(loaded(tmp_path, HEAD + "stages: {a: {image: app, run: y, env: {A: 1}}}"))
    assert again.nodes["stage/a"].detail == "changed: image, script"


def test_an_artifact_that_holds_a_secret_is_told(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(a=Behaviour(files={"/o/x": b"... hunter2secret ..."}))
    text = (
        HEAD + "secrets: {t: {env: T}}\nstages: {a: {image: app, run: x, secrets: [t], artifacts: [/o/x]}}\n"
    )
    run.run(loaded(tmp_path, text, {"T": "hunter2secret"}))
    assert "/o/x holds a secret" in [e.message for e in run.events if isinstance(e, Warned)]


def test_old_runs_go_with_the_artifacts_only_they_had(run: Bench, tmp_path: Path) -> None:
    from pipeline.artifacts import ArtifactStore

    for number in range(3):
        run.engine.behave = by_stage(a=Behaviour(code=1, files={"/o": b"%d" % number}))
        run.run(loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x, artifacts: [/o]}}"))
    store = ArtifactStore(run.store.root)
    assert len(list(Path(store.directory).iterdir())) == 3
    assert run.journal.prune(1) == 2
    assert store.prune(run.journal.kept_digests(), older_than=float("inf")) == 2
    assert len(list(Path(store.directory).iterdir())) == 1
    assert [record.outcome for record in run.journal.runs()] == ["failed"]


def test_a_run_that_takes_too_long_is_a_timeout(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = by_stage(a=Behaviour(gate=threading.Event()))
    result = run.run(loaded(tmp_path, "timeout: 200ms\n" + HEAD + "stages: {a: {image: app, run: x}}"))
    assert str(result.outcome) == "timeout"
    assert not run.engine.made


def test_reports_are_kept_also_of_what_took_too_long(run: Bench, tmp_path: Path) -> None:
    files = {"/r/u.xml": b'<testsuite><testcase name="t"/></testsuite>'}
    run.engine.behave = by_stage(a=Behaviour(gate=threading.Event(), files=files))
    text = HEAD + "stages: {a: {image: app, run: x, timeout: 100ms, reports: {junit: /r/*.xml}}}"
    node = run.run(loaded(tmp_path, text)).nodes["stage/a"]
    assert str(node.outcome) == "timeout"
    assert node.tests is not None and node.tests.passed == 1


def test_combinations_with_long_names_do_not_share_a_directory(run: Bench, tmp_path: Path) -> None:
    name = "x" * 60
    run.engine.behave = lambda spec: Behaviour(writes=f"v={spec.labels['pipe.stage'][-2]}\n".encode())
    text = HEAD + f"stages: {{{name}: {{image: app, run: x, matrix: {{n: [1, 2, 3]}}}}}}"
    result = run.run(loaded(tmp_path, text))
    outputs = {node: dict(r.outputs)["v"] for node, r in result.nodes.items() if r.kind == "stage"}
    assert outputs == {f"stage/{name} ({n})": str(n) for n in (1, 2, 3)}


def test_a_cancel_while_a_container_starts_still_ends_it(run: Bench, tmp_path: Path) -> None:
    real_start = run.engine.start

    def start(container_id: str, output: object = None) -> None:
        run.cancel.cancel("interrupted")  # the kill that this asks for finds nothing that runs
        real_start(container_id, output)  # type: ignore[arg-type]

    def kill(container_id: str, signal: int) -> None:
        if run.engine.made[container_id].status == "running":
            run.engine._end(run.engine.made[container_id], 128 + signal)

    run.engine.start, run.engine.kill = start, kill  # type: ignore[method-assign]
    run.engine.behave = by_stage(a=Behaviour(gate=threading.Event()))
    result = run.run(loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x}}"))
    assert run.outcomes(result)["stage/a"] == "cancelled"


def leave(run: Bench, replace: Callable[[Path], None]) -> None:
    """The container does something to its $PIPE_OUTPUT before it ends."""
    real_start = run.engine.start

    def start(container_id: str, output: object = None) -> None:
        mount = next(m for m in run.engine.made[container_id].spec.mounts if m.target == "/run/pipe")
        file = Path(mount.source) / "output"
        file.unlink()
        replace(file)
        real_start(container_id, output)  # type: ignore[arg-type]

    run.engine.start = start  # type: ignore[method-assign]


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_a_stage_can_not_make_us_read_something_else_for_its_outputs(
    run: Bench, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "host").write_text("secret=of the host\n")
    leave(
        run,
        {
            "link": lambda file: file.symlink_to(tmp_path / "host"),
            "pipe": lambda file: os.mkfifo(file),
            "directory": lambda file: file.mkdir(),
        }[kind],
    )
    result = run.run(loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x}}"))
    assert result.nodes["stage/a"].outputs == ()
    assert any("not the file it was" in e.message for e in run.events if isinstance(e, Warned))


def test_a_second_attempt_writes_nothing_where_the_first_left_a_link(run: Bench, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    run.engine.behave = attempts([1, 0])  # type: ignore[assignment]
    leave(run, lambda file: (file.parent / "script").unlink() or (file.parent / "script").symlink_to(victim))  # type: ignore[func-returns-value]
    run.run(loaded(tmp_path, HEAD + "stages: {a: {image: app, run: x, retry: 1}}"))
    assert victim.read_text() == "untouched"


def test_secrets_lie_where_nobody_else_of_the_host_can_reach_them(run: Bench, tmp_path: Path) -> None:
    modes = []

    def behave(spec: object) -> Behaviour:
        mount = next(m for m in spec.mounts if m.target == "/run/secrets/token")  # type: ignore[attr-defined]
        modes.append(Path(mount.source).parent.stat().st_mode & 0o777)
        return Behaviour()

    run.engine.behave = behave
    text = HEAD + "secrets: {token: {env: T}}\nstages: {a: {image: app, run: x, secrets: [token]}}\n"
    run.run(loaded(tmp_path, text, {"T": "hunter2secret"}))
    assert modes == [0o700]
