"""BuildKit's API of the daemon, called as buildx calls it (FEATURES B-24). What real clients see is in `test_buildx`."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from builder.control.messages import control, gateway
from builder.control.messages.common import CacheEntry, Empty
from builder.control.messages.control import Exporter
from runtime.grpc.client import call, open_stream
from runtime.grpc.status import Code, GrpcError
from tests.support.builder import write_files
from tests.support.buildkit_client import BuildClient, Built, Offered, build_client
from tests.support.daemon import Daemon
from tests.support.registry import docker_registry

COPY = "FROM scratch\nCOPY . /files/\n"
MOBY = (Exporter("moby", {"name": "made:1"}),)
CONTROL = "/moby.buildkit.v1.Control/"


@pytest.fixture
def client(daemon: Daemon) -> Iterator[BuildClient]:
    with build_client(daemon.path) as found:
        yield found


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write_files(tmp_path / "context", {"Dockerfile": COPY, "a.txt": "a", "sub/b.txt": "b"})


def offered(context: Path, **more: object) -> Offered:
    return Offered({"context": context, "dockerfile": context}, **more)  # type: ignore[arg-type]


def tar_of(client: BuildClient, files: Offered, attrs: Mapping[str, str] = {}) -> set[str]:
    """The names in the root file system of a build."""
    built = client.build(files, attrs, (Exporter("tar"),))
    assert built.error is None, built.error
    with tarfile.open(fileobj=io.BytesIO(files.outputs[0])) as tar:
        return set(tar.getnames())


def test_an_image_is_built_named_and_told_of(daemon: Daemon, client: BuildClient, context: Path) -> None:
    built = client.build(offered(context), {"label:x": "y"}, MOBY)
    assert built.error is None
    (image,) = daemon.docker.images.list()
    assert image.tags == ["made:1"] and image.labels == {"x": "y"}
    assert (
        image.id == built.response["containerimage.config.digest"] == built.response["containerimage.digest"]
    )
    assert built.response["image.name"] == "docker.io/library/made:1"
    names = [each.name for each in built.status.vertexes]
    assert "[internal] load build definition from Dockerfile" in names and "[1/1] COPY . /files/" in names
    assert all(
        each.completed for each in built.status.vertexes if each.name and each.started == each.completed
    )


def test_the_second_build_is_cached_and_only_changes_are_sent(client: BuildClient, context: Path) -> None:
    first, second, third = (offered(context) for _ in range(3))
    assert client.build(first, exporters=MOBY, shared_key="work").error is None
    again = client.build(second, exporters=MOBY, shared_key="work")
    assert again.ended("COPY").cached
    assert sorted(first.sent) == ["Dockerfile", "Dockerfile", "a.txt", "sub/b.txt"]
    assert second.sent == ["Dockerfile"]  # is read each time
    (context / "a.txt").write_text("changed")
    assert not client.build(third, exporters=MOBY, shared_key="work").ended("COPY").cached
    assert third.sent == ["Dockerfile", "a.txt"]


def test_clients_without_a_common_name_share_no_files(client: BuildClient, context: Path) -> None:
    client.build(offered(context), exporters=MOBY)
    again = offered(context)
    client.build(again, exporters=MOBY)
    assert sorted(again.sent) == ["Dockerfile", "Dockerfile", "a.txt", "sub/b.txt"]


def test_what_is_ignored_is_not_even_sent(client: BuildClient, context: Path) -> None:
    write_files(context, {".dockerignore": "sub\n*.txt\n!a.txt\n", "c.txt": "c"})
    files = offered(context)
    assert tar_of(client, files) == {"files", "files/Dockerfile", "files/.dockerignore", "files/a.txt"}
    assert not {"sub/b.txt", "c.txt"} & set(files.sent)


def test_the_dockerfiles_own_ignore_file_counts_instead_of_the_contexts(
    client: BuildClient, context: Path
) -> None:
    write_files(context, {".dockerignore": "a.txt\n", "Dockerfile.dockerignore": "sub\n"})
    names = tar_of(client, offered(context))
    assert "files/a.txt" in names and "files/sub" not in names


@pytest.mark.parametrize(
    ("lines", "sent"),
    [
        ("COPY a.txt /", {"a.txt"}),
        ("COPY sub /s/", {"sub/b.txt"}),
        ("COPY [ac].txt /", {"a.txt", "c.txt"}),
        ("ARG N=c\nCOPY ${N}.txt ./a.txt /d/", {"a.txt", "c.txt"}),
        ("COPY ../sub/../a.txt /", {"a.txt"}),
        ("COPY --from=other sub /", {"sub/b.txt"}),
        ("ADD https://127.0.0.1:9/x /", set()),
        ("LABEL a=b", set()),
    ],
)
def test_only_what_steps_use_is_sent(client: BuildClient, context: Path, lines: str, sent: set[str]) -> None:
    head = "FROM scratch AS unused\nCOPY d.txt /\nFROM scratch AS other\nCOPY sub /sub\nFROM scratch\n"
    write_files(context, {"Dockerfile": f"{head}{lines}\n", "c.txt": "c", "d.txt": "d"})
    files = offered(context)
    client.build(files, exporters=MOBY)
    assert set(files.sent) - {"Dockerfile"} == sent


def test_outputs_go_to_the_client(client: BuildClient, context: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    files = offered(context, targets={1: target})
    exporters = (
        Exporter("tar"),
        Exporter("local"),
        Exporter("oci", {"name": "made:2"}),
        Exporter("docker", {"name": "made:3"}),
    )
    assert client.build(files, exporters=exporters).error is None
    assert (target / "files" / "sub" / "b.txt").read_text() == "b"
    with tarfile.open(fileobj=io.BytesIO(files.outputs[2])) as tar:
        (entry,) = json.load(tar.extractfile("index.json"))["manifests"]  # type: ignore[arg-type]
    assert entry["annotations"]["io.containerd.image.name"] == "docker.io/library/made:2"
    with tarfile.open(fileobj=io.BytesIO(files.outputs[3])) as tar:
        assert json.load(tar.extractfile("manifest.json"))[0]["RepoTags"] == ["made:3"]  # type: ignore[arg-type]


def test_a_directory_beside_the_context_by_its_name(
    client: BuildClient, context: Path, tmp_path: Path
) -> None:
    other = write_files(tmp_path / "other", {"x": "x", "y": "y", ".dockerignore": "y\n"})
    (context / "Dockerfile").write_text("FROM scratch\nCOPY --from=more / /more/\n")
    files = Offered({"context": context, "dockerfile": context, "more": other})
    assert tar_of(client, files, {"context:more": "local:more"}) == {"more", "more/x", "more/.dockerignore"}


def test_a_directory_of_the_client_is_an_output_and_a_context(
    daemon: Daemon, client: BuildClient, context: Path, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    files = offered(context, layouts={"export": layout, "oci:mine": layout})
    built = client.build(files, exporters=(Exporter("oci", {"tar": "false", "name": "made:1"}),))
    assert built.error is None, built.error
    record = json.loads(base64.b64decode(built.response["containerimage.descriptor"]))
    digest = record["digest"]
    assert (layout / "blobs" / digest.replace(":", "/")).stat().st_size == record["size"]
    (context / "Dockerfile").write_text("FROM lay\nCOPY Dockerfile /more\n")
    names = tar_of(client, files, {"context:lay": f"oci-layout://mine:latest@{digest}"})
    assert {"more", "files/a.txt"} <= names


def test_a_blob_that_is_not_what_it_should_be_is_refused(
    client: BuildClient, context: Path, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    files = offered(context, layouts={"export": layout, "oci:mine": layout})
    built = client.build(files, exporters=(Exporter("oci", {"tar": "false"}),))
    digest = json.loads(base64.b64decode(built.response["containerimage.descriptor"]))["digest"]
    for place in (layout / "blobs" / "sha256").iterdir():
        data = place.read_bytes()
        place.write_bytes(data[:-1] + bytes((data[-1] ^ 1,)))
    (context / "Dockerfile").write_text("FROM lay\n")
    error = client.build(files, {"context:lay": f"oci-layout://mine:latest@{digest}"}, MOBY).error
    assert error is not None and "something else" in error.message


def test_a_cache_lies_in_a_directory_of_the_client(
    daemon: Daemon, client: BuildClient, context: Path, tmp_path: Path
) -> None:
    files = offered(context, layouts={"local:cache": tmp_path / "cache"})
    to = (CacheEntry("local", {"dest": "cache", "mode": "max"}),)
    first = client.build(files, exporters=MOBY, cache_to=to)
    assert first.error is None, first.error
    assert "export cache to local cache" in [each.name for each in first.status.vertexes]
    digest = json.loads(first.response["cache.manifest"])["digest"]
    daemon.docker.images.remove("made:1")
    gone = open_stream(client.grpc, f"{CONTROL}Prune")
    gone.write(control.PruneRequest(all=True))
    gone.end_sending()
    assert list(gone.messages(control.UsageRecord))
    imports = [{"Type": "local", "Attrs": {"src": "cache", "digest": digest}}]
    again = client.build(files, {"cache-imports": json.dumps(imports)}, MOBY)
    assert again.error is None and again.ended("COPY").cached
    assert again.response["containerimage.digest"] == first.response["containerimage.digest"]


def test_a_result_is_the_input_of_another_build(client: BuildClient, context: Path, tmp_path: Path) -> None:
    second = write_files(tmp_path / "second", {"Dockerfile": "FROM first\nCOPY Dockerfile /second\n"})
    files = offered(second)
    with client.session(offered(context)) as session:
        first = client.build_in(session)  # without an output: nothing is built yet
        assert first.error is None and first.result is not None and first.result.definition is not None
        inputs = {"first": first.result.definition}
        built = client.build(files, {"context:first": "input:first"}, (Exporter("tar"),), inputs=inputs)
    assert built.error is None, built.error
    with tarfile.open(fileobj=io.BytesIO(files.outputs[0])) as tar:
        assert {"files/a.txt", "second"} <= set(tar.getnames())


def test_a_secret_is_asked_for_and_kept_nowhere(daemon: Daemon, client: BuildClient, context: Path) -> None:
    """ADD with a token from the client: the only use of one that needs no container."""
    (context / "Dockerfile").write_text("FROM scratch\nADD http://127.0.0.1:9/x /x\n")
    asked: list[str] = []

    class Watched(dict[str, bytes]):
        def __contains__(self, name: object) -> bool:
            asked.append(str(name))
            return super().__contains__(name)

    secrets = Watched({"HTTP_AUTH_TOKEN_127.0.0.1:9": b"very-secret-token"})
    built = client.build(offered(context, secrets=secrets), exporters=MOBY)
    assert built.error is not None  # nobody listens there
    assert any(name.startswith("HTTP_AUTH_") for name in asked)
    left = [
        path
        for path in daemon.root.rglob("*")
        if path.is_file() and b"very-secret-token" in path.read_bytes()
    ]
    assert left == []


@pytest.mark.peer
@pytest.mark.parametrize("auth", ["basic", "token"])
def test_the_clients_login_opens_a_registry(
    client: BuildClient, context: Path, tmp_path: Path, auth: str
) -> None:
    with docker_registry(tmp_path / "registry", auth=auth) as registry:
        logins = {registry.host: (registry.user, registry.password)}
        push = (Exporter("moby", {"name": f"{registry.host}/base:1", "push": "true"}),)
        refused = client.build(offered(context), exporters=push)
        assert refused.error is not None
        pushed = client.build(offered(context, logins=logins), exporters=push)
        assert pushed.error is None and pushed.response["containerimage.descriptor"]
        (context / "Dockerfile").write_text(f"FROM {registry.host}/base:1\n")
        ask = {"image-resolve-mode": "pull"}
        assert client.build(offered(context), ask, MOBY).error is not None
        assert client.build(offered(context, logins=logins), ask, MOBY).error is None


def test_a_mistake_has_its_place_in_the_dockerfile(client: BuildClient, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nRUM x\n")
    error = client.build(offered(context), exporters=MOBY).error
    assert error is not None and error.code is Code.UNKNOWN and "unknown instruction: RUM" in error.message
    (detail,) = error.details
    assert detail.type_url == "github.com/moby/buildkit/errdefs.Source+json"
    source = json.loads(detail.value)
    assert source["info"]["filename"] == "Dockerfile"
    assert source["ranges"] == [{"start": {"line": 2}, "end": {"line": 2}}]


@pytest.mark.parametrize(
    ("attrs", "exporters", "words"),
    [
        ({"filename": "None"}, MOBY, "open None: no such file"),
        ({"target": "x"}, MOBY, "x"),
        ({"context:a": "oci-layout://a"}, MOBY, "has no digest"),
        ({"context:a": "oci-layout://a@sha256:1"}, MOBY, "is no digest"),
        ({"cache-imports": '[{"Type":"local","Attrs":{"src":"/x"}}]'}, MOBY, "which cache of /x"),
        ({}, (Exporter("elsewhere"),), "elsewhere"),
        ({"dockerfilekey": "other"}, MOBY, "no access allowed"),
    ],
)
def test_what_cannot_be_done_is_told(
    client: BuildClient, context: Path, attrs: dict[str, str], exporters: tuple[Exporter, ...], words: str
) -> None:
    error = client.build(offered(context), attrs, exporters).error
    assert error is not None and words in error.message


@pytest.mark.parametrize(
    "kind", ["frontend.lint", "frontend.outline", "frontend.targets", "frontend.subrequests.describe"]
)
def test_questions_about_a_dockerfile_are_answered_without_a_build(
    daemon: Daemon, client: BuildClient, context: Path, kind: str
) -> None:
    (context / "Dockerfile").write_text("FROM scratch as one\nARG X=1\nMAINTAINER me\n")
    files = offered(context)
    found = client.build(files, {"requestid": kind})
    assert found.error is None and found.result is None and files.sent == ["Dockerfile"]
    record = json.loads(found.metadata["result.json"])
    assert found.metadata["result.txt"] and record
    if kind == "frontend.lint":
        assert {each["ruleName"] for each in record["warnings"]} == {"FromAsCasing", "MaintainerDeprecated"}
        assert found.metadata["result.statuscode"] == b"1"
    assert daemon.docker.images.list() == []


def test_an_unknown_question_is_told(client: BuildClient, context: Path) -> None:
    error = client.build(offered(context), {"requestid": "frontend.other"}).error
    assert error is not None and error.code is Code.UNIMPLEMENTED


def test_a_graph_of_llb_is_refused_in_clear_words(client: BuildClient) -> None:
    request = control.SolveRequest("x", definition=control.Definition([b"node"]), session="s")
    with pytest.raises(GrpcError, match="LLB") as caught:
        call(client.grpc, f"{CONTROL}Solve", request, control.SolveResponse)
    assert caught.value.code is Code.UNIMPLEMENTED


def test_a_build_whose_session_ends_is_over(client: BuildClient, context: Path) -> None:
    """The client is gone while its files are on their way."""
    reached = threading.Event()

    class Stuck(Offered):
        def _send(self, stream: object) -> None:
            reached.set()
            stream.cancel.wait(60)  # type: ignore[attr-defined]

    files = Stuck({"context": context, "dockerfile": context})
    ref, built = os.urandom(8).hex(), Built()
    with client.session(files) as session:
        request = control.SolveRequest(ref, session=session, frontend="dockerfile.v0", exporters=list(MOBY))
        thread = threading.Thread(target=client._solve, args=(request, built))
        thread.start()
        assert reached.wait(60)
    thread.join(60)
    assert not thread.is_alive() and built.error is not None


def test_several_builds_at_once_do_not_disturb_each_other(
    daemon: Daemon, client: BuildClient, tmp_path: Path
) -> None:
    found: dict[int, Built] = {}

    def build(number: int) -> None:
        context = write_files(tmp_path / f"c{number}", {"Dockerfile": COPY, "n": str(number)})
        exporters = (Exporter("moby", {"name": f"n{number}"}),)
        found[number] = client.build(offered(context), exporters=exporters, shared_key="same")

    threads = [threading.Thread(target=build, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert [found[number].error for number in range(6)] == [None] * 6
    assert len({found[number].response["containerimage.digest"] for number in range(6)}) == 6
    assert len(daemon.docker.images.list()) == 6
    assert list((daemon.root / "drafts").iterdir()) == []


def test_the_cache_is_told_of_and_pruned(daemon: Daemon, client: BuildClient, context: Path) -> None:
    client.build(offered(context), exporters=MOBY, shared_key="k")
    usage = call(client.grpc, f"{CONTROL}DiskUsage", control.DiskUsageRequest(), control.DiskUsageResponse)
    assert [(each.type, each.shared) for each in usage.records] == [("regular", True)]
    assert any((daemon.root / "daemon" / "contexts").iterdir())
    stream = open_stream(client.grpc, f"{CONTROL}Prune")
    stream.write(control.PruneRequest(all=True))
    stream.end_sending()
    gone = [each.type for each in stream.messages(control.UsageRecord)]
    assert gone == ["regular", "source.local"]
    assert not any((daemon.root / "daemon" / "contexts").iterdir())


def test_the_worker_says_what_it_is(client: BuildClient) -> None:
    found = call(client.grpc, f"{CONTROL}ListWorkers", Empty(), control.ListWorkersResponse)
    (worker,) = found.workers
    assert worker.platforms and "org.mobyproject.buildkit.worker.snapshotter" in worker.labels
    info = call(client.grpc, f"{CONTROL}Info", Empty(), control.InfoResponse)
    assert info.version is not None and info.version.version.startswith("v0.")


@pytest.mark.parametrize("route", ["/grpc", "/session"])
def test_without_an_upgrade_it_is_a_mistake(daemon: Daemon, route: str) -> None:
    answer = daemon.http.post(route)
    assert answer.status_code == 400 and "h2c" in answer.json()["message"]


def test_a_call_for_a_build_that_is_not_there_is_told(
    client: BuildClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.control.jobs._PATIENCE", 0.05)
    with pytest.raises(GrpcError) as caught:
        call(client.grpc, "/moby.buildkit.v1.frontend.LLBBridge/Ping", Empty(), gateway.Pong)
    assert caught.value.code is Code.NOT_FOUND


# --- /build?version=2 ---------------------------------------------------------------------------------------------


def older_build(daemon: Daemon, client: BuildClient, files: Offered, **query: str) -> list[dict[str, Any]]:
    """As docker's command line did before buildx: the records of the answer."""
    with client.session(files) as session:
        asked = {"version": "2", "session": session, "remote": "client-session", "t": "old:1", **query}
        answer = daemon.http.post("/build", params=asked)
    # What is wrong before there is anything to tell is a status.
    records = [json.loads(line) for line in answer.text.splitlines()]
    return records if answer.status_code == 200 else [{"error": records[0]["message"]}]


def test_an_older_client_builds_over_its_session(daemon: Daemon, client: BuildClient, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nARG X\nCOPY $X /\n")
    query = {"buildargs": '{"X":"a.txt","Y":null}', "labels": '{"l":"v"}', "dockerfile": "Dockerfile"}
    *trace, last = older_build(daemon, client, offered(context), **query)
    assert {each["id"] for each in trace} == {"moby.buildkit.trace"}
    told = [control.StatusResponse.decode(base64.b64decode(each["aux"])) for each in trace]
    assert any("COPY a.txt /" in vertex.name for each in told for vertex in each.vertexes)
    image = daemon.docker.images.get("old:1")
    assert last == {"id": "moby.image.id", "aux": {"ID": image.id}} and image.labels == {"l": "v"}


def test_an_older_clients_output_and_mistake(
    daemon: Daemon, client: BuildClient, context: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    files = offered(context, targets={0: tmp_path / "out"})
    older_build(daemon, client, files, outputs='[{"Type":"local","Attrs":{}}]')
    assert (tmp_path / "out" / "files" / "a.txt").read_text() == "a"
    (context / "Dockerfile").write_text("FROM scratch\nRUM x\n")
    assert "unknown instruction: RUM" in older_build(daemon, client, offered(context))[-1]["error"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"remote": "upload-request"}, "archive"),
        ({"session": ""}, "needs a session"),
        ({"outputs": '[{"Type":"elsewhere"}]'}, "elsewhere"),
        ({"remote": "/etc"}, "/etc"),
    ],
)
def test_what_an_older_client_cannot_have_is_told(
    daemon: Daemon, client: BuildClient, context: Path, query: dict[str, str], words: str
) -> None:
    assert words in older_build(daemon, client, offered(context), **query)[-1]["error"]
