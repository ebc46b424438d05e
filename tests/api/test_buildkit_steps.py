"""BuildKit's API with steps that run, on `pipe daemon` as a process; what they see is said by what they print."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.control.messages.control import Exporter
from tests.support.builder import make_base, write_files
from tests.support.buildkit_client import BuildClient, Built, Offered, build_client, until
from tests.support.daemon import Daemon, daemon_process
from tests.support.networks import own_host
from tests.support.openssh import agent_with, copy_programs, fingerprint, make_key

pytestmark = pytest.mark.linux
MOBY = (Exporter("moby", {"name": "made:1"}),)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon on a host of its own, whose store has `base:1`."""
    directory = tmp_path_factory.mktemp("d")
    with own_host():
        make_base(directory / "store", directory / "base")
        with daemon_process(directory / "store") as found:
            yield found


@pytest.fixture
def client(daemon: Daemon) -> Iterator[BuildClient]:
    with build_client(daemon.path) as found:
        yield found


def build(
    client: BuildClient, context: Path, dockerfile: str, attrs: dict[str, str] | None = None, **lent: object
) -> Built:
    write_files(context, {"Dockerfile": dockerfile})
    offered = Offered({"context": context, "dockerfile": context}, **lent)  # type: ignore[arg-type]
    return client.build(offered, {"no-cache": "", **(attrs or {})}, MOBY)


def test_a_step_runs_with_what_the_attributes_say(client: BuildClient, tmp_path: Path) -> None:
    attrs = {
        "build-arg:X": "5",
        "add-hosts": "example=1.2.3.4",
        "shm-size": "8388608",
        "ulimit": "nofile=77:99",
        "force-network-mode": "none",
    }
    script = 'echo "X=$X"; grep example /etc/hosts; ulimit -n; df -k /dev/shm | tail -1; ls /sys/class/net'
    built = build(client, tmp_path / "c", f"FROM base:1\nARG X\nRUN {script}\n", attrs)
    assert built.error is None, built.error
    lines = [line.split() for line in built.output.splitlines()]
    assert lines[:3] == [["X=5"], ["1.2.3.4", "example"], ["77"]]
    assert lines[3][1] == "8192" and lines[4] == ["lo"]


def test_what_is_allowed_is_allowed(client: BuildClient, tmp_path: Path) -> None:
    text = "FROM base:1\nRUN --security=insecure grep CapEff /proc/self/status\n"
    context = write_files(tmp_path / "c", {"Dockerfile": text})
    with client.session(Offered({"context": context, "dockerfile": context})) as session:
        refused = client.build_in(session, {"no-cache": ""}, MOBY)
        allowed = client.build_in(session, {"no-cache": ""}, MOBY, entitlements=("security.insecure",))
    assert refused.error is not None and "not allowed" in refused.error.message
    assert allowed.error is None and "CapEff" in allowed.output


def test_a_step_that_fails_says_why_and_where(client: BuildClient, tmp_path: Path) -> None:
    built = build(client, tmp_path / "c", "FROM base:1\nRUN true\nRUN echo out && exit 3\n")
    assert built.error is not None and "exit code 3" in built.error.message
    assert b'"line": 3' in built.error.details[0].value
    assert built.ended("RUN echo out").error and not built.ended("RUN true").error
    assert built.output == "out\n"


def test_a_secret_is_in_the_step_and_nowhere_else(
    daemon: Daemon, client: BuildClient, tmp_path: Path
) -> None:
    text = (
        "FROM base:1\n"
        "RUN --mount=type=secret,id=a cat /run/secrets/a; wc -c < /run/secrets/a\n"
        'RUN --mount=type=secret,id=b,env=B echo "env $B"\n'
        "RUN --mount=type=secret,id=none ls /run/secrets/none || echo without\n"
    )
    secrets = {"a": b"first-secret-value", "b": b"second-secret-value"}
    built = build(client, tmp_path / "c", text, secrets=secrets)
    assert built.error is None, built.error
    assert "****" in built.output and "18\n" in built.output and "env ****" in built.output
    assert "without" in built.output and "secret-value" not in built.output
    files = [path for path in daemon.root.rglob("*") if path.is_file()]
    assert not [path for path in files if b"secret-value" in path.read_bytes()]


def test_a_secret_the_client_has_not_is_missed_where_it_is_required(
    client: BuildClient, tmp_path: Path
) -> None:
    built = build(
        client, tmp_path / "c", "FROM base:1\nRUN --mount=type=secret,id=x,required cat /run/secrets/x\n"
    )
    assert built.error is not None and "secret 'x' is required" in built.error.message


@pytest.mark.peer
def test_the_clients_agent_answers_in_the_step(client: BuildClient, tmp_path: Path) -> None:
    context = tmp_path / "c"
    copy_programs(context / "root", "ssh-add")
    key = make_key(tmp_path)
    text = (
        "FROM base:1\nCOPY root /\nENV PATH=/usr/bin:/bin\n"
        "RUN --mount=type=ssh ssh-add -l\nRUN --mount=type=ssh,id=more ssh-add -l; echo code $?\n"
    )
    with agent_with(key) as agent:
        built = build(client, context, text, agents={"default": agent})
    assert built.error is None, built.error
    assert fingerprint(key) in built.output and "code 2" in built.output


def test_a_build_whose_client_goes_away_leaves_nothing(
    daemon: Daemon, client: BuildClient, tmp_path: Path
) -> None:
    context = write_files(tmp_path / "c", {"Dockerfile": "FROM base:1\nRUN echo begun; sleep 3077\n"})
    offered = Offered({"context": context, "dockerfile": context})
    built = Built()
    begun = threading.Event()

    class Watched(list):  # type: ignore[type-arg]
        def __iadd__(self, more: list) -> Watched:  # type: ignore[type-arg,misc,override]
            if any(b"begun" in log.data for log in more):
                begun.set()
            return self

    built.status.logs = Watched()
    with client.session(offered) as session:
        with build_client(daemon.path) as other:
            thread = threading.Thread(target=run_until_lost, args=(other, session, built))
            thread.start()
            assert begun.wait(60)
            assert until(sleeping)
        # Its connection is gone, the session still there.
        thread.join(60)
        assert not thread.is_alive()
        assert build(client, tmp_path / "d", "FROM base:1\nRUN true\n").error is None
        assert until(lambda: not sleeping() and not any((daemon.root / "drafts").iterdir()))


def test_a_daemon_that_is_ended_ends_its_builds_first(tmp_path: Path) -> None:
    make_base(tmp_path / "store", tmp_path / "base")
    context = write_files(tmp_path / "c", {"Dockerfile": "FROM base:1\nRUN echo begun; sleep 3077\n"})
    with daemon_process(tmp_path / "store") as daemon, build_client(daemon.path) as client:
        found: list[Built] = []
        offered = Offered({"context": context, "dockerfile": context})
        thread = threading.Thread(target=lambda: found.append(client.build(offered, exporters=MOBY)))
        thread.start()
        assert until(sleeping) and daemon.process is not None
        began = time.monotonic()
        daemon.process.terminate()
        daemon.process.wait(60)
        took = time.monotonic() - began
        thread.join(60)
        assert not thread.is_alive() and until(lambda: not sleeping())
    assert found[0].error is not None and "the daemon ends" in found[0].error.message
    assert took < 30, took
    assert list((tmp_path / "store" / "drafts").iterdir()) == []


def run_until_lost(client: BuildClient, session: str, built: Built) -> None:
    import contextlib

    from builder.control.messages.control import SolveRequest
    from runtime.grpc.status import GrpcError

    request = SolveRequest("lost", session=session, frontend="dockerfile.v0", exporters=list(MOBY))
    solving = threading.Thread(target=client._solve, args=(request, built))
    solving.start()
    with contextlib.suppress(GrpcError):
        client._follow("lost", built)
    solving.join(60)


def sleeping() -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == b"sleep\x003077\x00":
                return True
        except OSError:
            pass
    return False
