"""Deploys with an engine in memory: what is recreated, gates, the way back, history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.deploy.deploy import WAITING, DeployContext, run_rollback
from pipeline.deploy.gate import Gate
from pipeline.deploy.records import Deployments
from pipeline.deploy.release import release_from_json, release_to_json
from pipeline.engines import ContainerState
from pipeline.mask import Secrets
from pipeline.plan import Kind
from pipeline.runner import RunResult
from pipeline.secrets import SecretStore
from pipeline.spec import HealthGate
from runtime.cancel import Cancel
from runtime.errors import NotFound, StepFailed
from tests.support.pipeline import Behaviour, Bench, FakeEngine, bench, loaded

TEXT = """name: shop
images: {app: {}}
deploy:
  live:
    services:
      web: {image: app, ports: ["8080:80"], depends_on: [db], environment: {V: "%s"}, restart: always}
      db: {image: postgres, volumes: [data:/d], restart: always}
    volumes: {data: {}}
    health: {timeout: 300ms}
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, lambda spec: Behaviour(runs_on=True)) as made:
        yield made


def deploy(run: Bench, tmp_path: Path, value: str = "1", text: str = TEXT) -> RunResult:
    return run.run(loaded(tmp_path, text % value if "%s" in text else text), Kind.DEPLOY, "live")


def running(run: Bench) -> dict[str, str]:
    return {c.name: c.id for c in run.engine.made.values() if c.status == "running"}


def test_services_are_named_and_labelled_as_compose_does(run: Bench, tmp_path: Path) -> None:
    deploy(run, tmp_path)
    assert set(running(run)) == {"shop-live-web-1", "shop-live-db-1"}
    labels = run.engine.containers({"com.docker.compose.service": "web"})[0].labels
    assert labels["com.docker.compose.project"] == "shop-live"
    assert labels["com.docker.compose.container-number"] == "1"
    assert set(run.engine.network_labels) == {"shop-live_default"}
    assert set(run.engine.volume_labels) == {"shop-live_data"}


def test_services_are_started_in_the_order_of_their_needs(run: Bench, tmp_path: Path) -> None:
    deploy(run, tmp_path)
    starts = [line for line in run.engine.log if line.startswith("start")]
    assert starts == ["start shop-live-db-1", "start shop-live-web-1"]


def test_a_second_deploy_of_the_same_changes_nothing(run: Bench, tmp_path: Path) -> None:
    deploy(run, tmp_path)
    before = running(run)
    result = deploy(run, tmp_path)
    assert running(run) == before
    assert run.outcomes(result)["deploy/live"] == "cached"


def test_only_what_changed_is_recreated(run: Bench, tmp_path: Path) -> None:
    deploy(run, tmp_path)
    before = running(run)
    deploy(run, tmp_path, "2")
    after = running(run)
    assert after["shop-live-db-1"] == before["shop-live-db-1"]
    assert after["shop-live-web-1"] != before["shop-live-web-1"]
    assert len(run.engine.made) == 2


def test_a_changed_image_recreates_its_service(run: Bench, tmp_path: Path) -> None:
    deploy(run, tmp_path)
    before = running(run)
    run.engine.content["app"] = "new"
    deploy(run, tmp_path)
    assert running(run)["shop-live-web-1"] != before["shop-live-web-1"]


def test_a_service_no_longer_wanted_goes(run: Bench, tmp_path: Path) -> None:
    deploy(run, tmp_path)
    deploy(
        run,
        tmp_path,
        text=TEXT.replace("      db: {image: postgres, volumes: [data:/d], restart: always}\n", "").replace(
            "depends_on: [db], ", ""
        ),
    )
    assert set(running(run)) == {"shop-live-web-1"}
    assert len(run.engine.made) == 1


def bad_web(spec: object) -> Behaviour:
    is_new_web = spec.labels["com.docker.compose.service"] == "web" and "V=2" in spec.env  # type: ignore[attr-defined]
    if is_new_web:
        return Behaviour(code=9, output=(("stderr", b"no database\n"),))
    return Behaviour(runs_on=True)


def test_a_release_that_does_not_come_up_leaves_the_old_one_running(run: Bench, tmp_path: Path) -> None:
    deploy(run, tmp_path)
    before = running(run)
    run.engine.behave = bad_web
    result = deploy(
        run, tmp_path, "2", TEXT.replace("restart: always}\n      db", "restart: 'no'}\n      db")
    )
    node = result.nodes["deploy/live"]
    assert str(node.outcome) == "failed"
    assert "service `web` exited with 9" in node.error
    assert isinstance(node.cause, StepFailed) and "web | no database" in node.cause.output
    assert running(run) == before
    assert len(run.engine.made) == 2


def test_an_unhealthy_release_is_taken_back(run: Bench, tmp_path: Path) -> None:
    deploy(run, tmp_path)
    before = running(run)
    run.engine.behave = lambda spec: Behaviour(runs_on=True, health="unhealthy" if "V=2" in spec.env else "")
    deploy(run, tmp_path, "2")
    assert running(run) == before


def test_a_probe_that_never_answers_takes_the_release_back(run: Bench, tmp_path: Path) -> None:
    deploy(run, tmp_path)
    before = running(run)
    text = TEXT.replace(
        "health: {timeout: 300ms}", "health: {tcp: '127.0.0.1:1', timeout: 200ms, interval: 10ms}"
    )
    node = deploy(run, tmp_path, "2", text).nodes["deploy/live"]
    assert "not healthy after 0.2 s: 127.0.0.1:1" in node.error
    assert running(run) == before


def test_a_cancelled_deploy_is_taken_back(run: Bench, tmp_path: Path) -> None:
    deploy(run, tmp_path)
    before = running(run)

    def behave(spec: object) -> Behaviour:
        if "V=2" in spec.env:  # type: ignore[attr-defined]
            run.cancel.cancel("interrupted")
        return Behaviour(runs_on=True, health="starting")

    run.engine.behave = behave
    result = deploy(run, tmp_path, "2")
    assert str(result.outcome) == "cancelled"
    assert running(run) == before


def context_of(run: Bench, tmp_path: Path) -> DeployContext:
    pipeline = loaded(tmp_path, TEXT % "x")
    return DeployContext(
        spec=pipeline.spec,
        engine=run.engine,
        deployments=Deployments(run.store.db, "shop"),
        secrets=SecretStore((), str(tmp_path), {}, Secrets()),
        emit=lambda event: None,
        outside={},
        store=run.store.root,
        run="r",
        who="tester",
    )


def web_env(run: Bench) -> tuple[str, ...]:
    container = next(c for c in run.engine.made.values() if c.name == "shop-live-web-1")
    return container.spec.env


def test_a_rollback_brings_the_recorded_release_back_without_building(run: Bench, tmp_path: Path) -> None:
    deploy(run, tmp_path, "1")
    deploy(run, tmp_path, "2")
    builds = run.engine.log.count("build app")
    number, _ = run_rollback(context_of(run, tmp_path), "live", 0, Cancel())
    assert number == 1
    assert web_env(run) == ("V=1",)
    assert run.engine.log.count("build app") == builds
    latest = Deployments(run.store.db, "shop").history("live")[0]
    assert (latest.number, latest.reason, latest.outcome, latest.who) == (
        3,
        "rollback to 1",
        "done",
        "tester",
    )


def test_a_rollback_to_a_number(run: Bench, tmp_path: Path) -> None:
    for value in "123":
        deploy(run, tmp_path, value)
    run_rollback(context_of(run, tmp_path), "live", 1, Cancel())
    assert web_env(run) == ("V=1",)


def test_a_rollback_needs_something_to_go_back_to(run: Bench, tmp_path: Path) -> None:
    deploy(run, tmp_path)
    with pytest.raises(NotFound, match="no earlier release"):
        run_rollback(context_of(run, tmp_path), "live", 0, Cancel())
    with pytest.raises(NotFound, match="no successful deploy 7"):
        run_rollback(context_of(run, tmp_path), "live", 7, Cancel())


def test_a_failed_deploy_is_in_the_history_and_not_the_current_one(run: Bench, tmp_path: Path) -> None:
    deploy(run, tmp_path)
    run.engine.behave = lambda spec: Behaviour(runs_on=True, health="unhealthy")
    deploy(run, tmp_path, "2")
    records = Deployments(run.store.db, "shop")
    assert [(d.number, d.outcome) for d in records.history("live")] == [(2, "failed"), (1, "done")]
    current = records.current("live")
    assert current is not None and current.number == 1


def test_a_release_survives_its_record(run: Bench, tmp_path: Path) -> None:
    deploy(run, tmp_path)
    release = Deployments(run.store.db, "shop").history("live")[0].release
    assert release_from_json(release_to_json(release)) == release
    assert release.services[1].image.startswith("sha256:")


def test_a_deploy_that_wants_approval_waits_for_it(run: Bench, tmp_path: Path) -> None:
    text = TEXT.replace("    health:", "    approve: true\n    health:") % "1"
    waiting = run.run(loaded(tmp_path, text), Kind.DEPLOY, "live")
    assert waiting.nodes["deploy/live"].detail == WAITING
    assert not run.engine.made
    asked = []
    run.run(
        loaded(tmp_path, text),
        Kind.DEPLOY,
        "live",
        approve=lambda name, summary: asked.append((name, summary)) or True,
    )  # type: ignore[func-returns-value]
    assert asked[0][0] == "live" and "web" in asked[0][1]
    assert len(running(run)) == 2


def test_two_deploys_of_one_environment_do_not_run_at_once(run: Bench, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "store" / "locks").mkdir(exist_ok=True)
    with (tmp_path / "store" / "locks" / "deploy-shop-live").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        node = deploy(run, tmp_path).nodes["deploy/live"]
    assert "another deploy of `shop-live` is running" in node.error
    assert not run.engine.made


def gate(states: list[list[ContainerState]], now: list[float], **health: object) -> Gate:
    """Each look takes the next states and moves the clock on."""

    def members() -> dict[str, list[ContainerState]]:
        now[0] += 1.0
        return {"web": states.pop(0) if len(states) > 1 else states[0]}

    return Gate(
        health=HealthGate(interval=0.0, **health),  # type: ignore[arg-type]
        engine=FakeEngine(),
        members=members,
        finished_is_fine=lambda service: False,
        clock=lambda: now[0],
    )


def state(**given: object) -> ContainerState:
    return ContainerState(**{"id": "i", "name": "n", "status": "running", **given})  # type: ignore[arg-type]


def test_a_gate_opens_when_all_are_healthy() -> None:
    gate([[state(health="starting")], [state(health="healthy")]], [0.0], timeout=10.0).wait(Cancel())


def test_a_gate_that_soaks_starts_anew_when_health_is_lost() -> None:
    now = [0.0]
    looks = [[state()], [state(status="restarting")], [state()], [state()], [state()], [state()]]
    gate(looks, now, timeout=60.0, soak=3.0).wait(Cancel())
    assert now[0] >= 6.0


def test_a_gate_that_is_not_passed_in_time_says_why() -> None:
    with pytest.raises(StepFailed, match="not healthy after 5 s: service `web` is starting"):
        gate([[state(health="starting")]], [0.0], timeout=5.0).wait(Cancel())


def test_an_http_gate_takes_only_the_status_it_wants() -> None:
    import http.server
    import threading

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404 if self.path == "/no" else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            gate([[state()]], [0.0], timeout=30.0, http=f"{url}/yes").wait(Cancel())
            gate([[state()]], [0.0], timeout=30.0, http=f"{url}/no", status=404).wait(Cancel())
            with pytest.raises(StepFailed, match="answered 404"):
                gate([[state()]], [0.0], timeout=3.0, http=f"{url}/no").wait(Cancel())
        finally:
            server.shutdown()
            thread.join(30)


def test_a_deploy_that_takes_too_long_is_a_timeout_and_taken_back(run: Bench, tmp_path: Path) -> None:
    run.engine.behave = lambda spec: Behaviour(runs_on=True, health="starting")
    text = TEXT.replace("health: {timeout: 300ms}", "health: {timeout: 60s}\n    timeout: 200ms")
    result = deploy(run, tmp_path, "1", text)
    assert run.outcomes(result)["deploy/live"] == "timeout"
    assert not run.engine.made


def test_what_an_interrupted_deploy_put_aside_comes_back_first(run: Bench, tmp_path: Path) -> None:
    deploy(run, tmp_path)
    before = running(run)
    old = next(c for c in run.engine.made.values() if c.name == "shop-live-web-1")
    run.engine.rename(old.id, "shop-live-web-1-old-abcd")
    run.engine.create(old.spec)  # the new one, which nobody saw healthy
    deploy(run, tmp_path)
    assert running(run) == before
    assert len(run.engine.made) == 2


def test_a_condition_on_an_output_is_decided_when_the_deploy_comes(run: Bench, tmp_path: Path) -> None:
    text = TEXT.replace("  live:\n", "  live:\n    if: 'stages.a.outputs.go == \"yes\"'\n") % "1"
    text += "stages: {a: {image: app, run: x}}\n"
    for answer, outcome in ((b"go=no\n", "skipped"), (b"go=yes\n", "done")):
        run.engine.behave = lambda spec, answer=answer: (  # type: ignore[misc]
            Behaviour(writes=answer) if "pipe.stage" in spec.labels else Behaviour(runs_on=True)
        )
        result = run.run(loaded(tmp_path, text), Kind.DEPLOY, "live", cache=False)
        assert run.outcomes(result)["deploy/live"] == outcome
