"""Images over the API: lists and their filters, inspect, names, removal, and the way from and to registries and archives."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from runtime.registry.access import Access
from runtime.registry.service import ServiceOptions
from tests.support.build_api import build, context, image_of
from tests.support.daemon import Daemon
from tests.support.embedded_registry import Served, embedded_registry
from tests.support.engine_schema import conforms
from tests.support.registry_images import layered_image
from tests.support.store import Entry, make_tar


def made(daemon: Daemon, name: str, text: str = "FROM scratch\nCOPY a /a\nLABEL x=y\n", **query: Any) -> str:
    return image_of(build(daemon, context({"Dockerfile": text, "a": name}), t=name, **query))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Served]:
    with embedded_registry(tmp_path / "registry") as found:
        found.push("base", "1", layered_image({"f": b"1"}, {"g": b"2"}))
        yield found


# --- what is here ---------------------------------------------------------------------------------------------------


def test_lists_are_as_docker_describes_them(daemon: Daemon) -> None:
    first, second = made(daemon, "one:1"), made(daemon, "two:1", "FROM scratch\nCOPY a /a\n")
    records = daemon.http.get("/images/json").json()
    for record in records:
        conforms("ImageSummary", record)
    assert {(each["Id"], *each["RepoTags"]) for each in records} == {(first, "one:1"), (second, "two:1")}
    assert {each["Id"]: each["Labels"] for each in records} == {first: {"x": "y"}, second: None}
    assert all(each["Containers"] == 0 and each["SharedSize"] == -1 for each in records)
    old = daemon.http.get("/v1.43/images/json").json()
    assert all(each["VirtualSize"] == each["Size"] and each["Containers"] == -1 for each in old)


def test_shared_sizes_are_counted_when_asked_for(daemon: Daemon) -> None:
    made(daemon, "one:1")
    made(daemon, "two:1", "FROM one:1\nCOPY a /b\n")
    found = {
        each["RepoTags"][0]: each
        for each in daemon.http.get("/images/json", params={"shared-size": "1"}).json()
    }
    assert found["one:1"]["SharedSize"] == found["one:1"]["Size"] == found["two:1"]["SharedSize"]
    assert found["two:1"]["Size"] == 2 * found["one:1"]["Size"]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"reference": ["on*"]}, ["one:1"]),
        ({"reference": ["one", "two:1"]}, ["one:1", "two:1"]),
        ({"reference": {"two:*": True}}, ["two:1"]),
        ({"label": ["x"]}, ["one:1"]),
        ({"label": ["x=y", "z"]}, []),
        ({"dangling": ["true"]}, ["<none>"]),
        ({"dangling": ["0"]}, ["one:1", "two:1"]),
        ({"since": ["one:1"]}, ["<none>", "two:1"]),
        ({"before": ["two:1"]}, ["one:1"]),
        ({"until": ["24h"]}, []),
    ],
)
def test_filters_choose_images(daemon: Daemon, filters: dict[str, Any], names: list[str]) -> None:
    made(daemon, "one:1")
    made(daemon, "two:1", "FROM scratch\nCOPY a /a\n")
    made(daemon, "three:1", "FROM scratch\nCOPY a /c\n")
    daemon.docker.images.get("three:1").tag("gone")
    daemon.images.untag("three:1")
    daemon.images.untag("gone")
    found = daemon.http.get("/images/json", params={"filters": json.dumps(filters)}).json()
    assert sorted(name for each in found for name in each["RepoTags"] or ["<none>"]) == names


@pytest.mark.parametrize("filters", ["x", '{"nope":["x"]}', '{"dangling":["x"]}', '["x"]'])
def test_filters_that_cannot_be_are_refused(daemon: Daemon, filters: str) -> None:
    answer = daemon.http.get("/images/json", params={"filters": filters})
    assert answer.status_code == 400
    assert "invalid filter" in answer.json()["message"]


def test_inspect_is_as_docker_describes_it_by_any_name(daemon: Daemon) -> None:
    image = made(daemon, "one:1", 'FROM scratch\nCOPY a /a\nENV A=1\nCMD ["sh"]\nEXPOSE 80\n')
    for name in ("one:1", image, image[7:], image[7:19], "docker.io/library/one:1"):
        record = daemon.http.get(f"/images/{name}/json").json()
        conforms("ImageInspect", record)
        assert record["Id"] == image
        assert record["Config"]["Cmd"] == ["sh"]
        assert record["Config"]["ExposedPorts"] == {"80/tcp": {}}
    assert daemon.docker.images.get("one:1").tags == ["one:1"]


def test_an_image_that_is_not_here_is_told_in_dockers_words(daemon: Daemon) -> None:
    for method, path in (
        ("GET", "/images/nope/json"),
        ("GET", "/images/nope/history"),
        ("DELETE", "/images/nope"),
        ("POST", "/images/nope/tag?repo=x"),
    ):
        answer = daemon.http.request(method, path)
        assert (answer.status_code, answer.json()) == (404, {"message": "No such image: nope:latest"})
    with pytest.raises(docker.errors.ImageNotFound):
        daemon.docker.images.get("nope:2")


def test_history_tells_how_it_was_made(daemon: Daemon) -> None:
    image = made(daemon, "one:1")
    records = daemon.http.get("/images/one:1/history").json()
    conforms("GET /images/{name}/history", records)
    assert [each["Id"] for each in records] == [image, "<missing>"]
    assert records[0]["Tags"] == ["one:1"] and records[1]["Tags"] is None
    assert [each["Size"] > 0 for each in records] == [False, True]


# --- names and removal ----------------------------------------------------------------------------------------------


def test_names_come_and_go(daemon: Daemon) -> None:
    image = made(daemon, "one:1")
    assert daemon.docker.images.get("one:1").tag("127.0.0.1:5000/other", tag="2")
    assert sorted(daemon.docker.images.get(image).tags) == ["127.0.0.1:5000/other:2", "one:1"]
    assert daemon.http.post("/images/one:1/tag", params={"repo": "UP"}).status_code == 400
    assert daemon.http.delete("/images/one:1").json() == [{"Untagged": "one:1"}]
    assert daemon.http.delete(f"/images/{image}").json() == [
        {"Untagged": "127.0.0.1:5000/other:2"},
        {"Deleted": image},
    ]
    assert daemon.http.get("/images/json").json() == []


def test_an_id_with_several_names_is_not_removed_without_force(daemon: Daemon) -> None:
    image = made(daemon, "one:1")
    daemon.docker.images.get("one:1").tag("two:1")
    assert daemon.http.delete(f"/images/{image}").status_code == 409
    daemon.docker.images.remove(image, force=True)
    assert daemon.docker.images.list() == []


def test_prune_removes_what_has_no_name(daemon: Daemon) -> None:
    made(daemon, "one:1")
    image = made(daemon, "two:1", "FROM scratch\nCOPY a /b\n")
    daemon.images.untag("two:1")
    found = daemon.docker.images.prune()
    assert found["ImagesDeleted"] == [{"Deleted": image}]
    assert daemon.docker.images.prune() == {"ImagesDeleted": None, "SpaceReclaimed": 0}
    assert daemon.docker.images.prune(filters={"dangling": False, "until": "24h"})["ImagesDeleted"] is None
    assert daemon.docker.images.prune(filters={"dangling": False})["ImagesDeleted"][0] == {
        "Untagged": "one:1"
    }


# --- registries -----------------------------------------------------------------------------------------------------


def test_pull_tells_its_progress_and_its_digest(daemon: Daemon, registry: Served) -> None:
    name = f"{registry.host}/base"
    told = list(daemon.docker.api.pull(name, tag="1", stream=True, decode=True))
    assert told[0] == {"status": "Pulling from base", "id": "1"}
    assert any(each.get("progressDetail", {}).get("total") for each in told)
    digest = daemon.docker.images.get(f"{name}:1").attrs["RepoDigests"][0].partition("@")[2]
    assert told[-2:] == [
        {"status": f"Digest: {digest}"},
        {"status": f"Status: Downloaded newer image for {name}:1"},
    ]
    again = list(daemon.docker.api.pull(name, tag="1", stream=True, decode=True))
    assert again[-1] == {"status": f"Status: Image is up to date for {name}:1"}
    by_digest = daemon.http.post("/images/create", params={"fromImage": name, "tag": digest})
    assert by_digest.status_code == 200 and "error" not in by_digest.text


def test_a_pull_that_cannot_begin_is_an_answer(daemon: Daemon, registry: Served) -> None:
    with pytest.raises(docker.errors.NotFound, match="nope"):
        daemon.docker.images.pull(f"{registry.host}/nope", tag="1")
    answer = daemon.http.post("/images/create", params={"fromImage": "127.0.0.1:1/nope", "tag": "1"})
    assert answer.status_code == 503
    assert daemon.http.post("/images/create").status_code == 400
    assert daemon.http.post("/images/create", params={"fromImage": "UPPER"}).status_code == 400


def test_push_tells_what_the_registry_has_now(daemon: Daemon, registry: Served) -> None:
    made(daemon, f"{registry.host}/mine:1")
    made(daemon, f"{registry.host}/mine:2")
    told = list(daemon.docker.api.push(f"{registry.host}/mine", tag="1", stream=True, decode=True))
    assert told[0] == {"status": f"The push refers to repository [{registry.host}/mine]"}
    aux = told[-1]["aux"]
    raw, _, digest = registry.client.manifest("mine", "1")
    assert aux == {"Tag": "1", "Digest": digest, "Size": len(raw)}
    assert told[-2] == {"status": f"1: digest: {digest} size: {len(raw)}"}
    everything = list(daemon.docker.api.push(f"{registry.host}/mine", stream=True, decode=True))
    assert [each["aux"]["Tag"] for each in everything if "aux" in each] == ["1", "2"]
    missing = list(daemon.docker.api.push(f"{registry.host}/nope", tag="1", stream=True, decode=True))
    assert "An image does not exist locally with the tag" in missing[-1]["error"]


def test_distribution_tells_what_a_name_means(daemon: Daemon, registry: Served) -> None:
    record = daemon.http.get(f"/distribution/{registry.host}/base:1/json").json()
    conforms("DistributionInspect", record)
    raw, media_type, digest = registry.client.manifest("base", "1")
    assert record["Descriptor"] == {"mediaType": media_type, "digest": digest, "size": len(raw)}
    assert record["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
    assert daemon.http.get(f"/distribution/{registry.host}/nope:1/json").status_code == 404
    data = daemon.docker.images.get_registry_data(f"{registry.host}/base:1")
    assert data.has_platform("linux/amd64")


def test_logins_are_tried(daemon: Daemon, tmp_path: Path) -> None:
    made_users = subprocess.run(
        ["htpasswd", "-nbB", "me", "geheim!"], capture_output=True, text=True, check=True
    )
    (tmp_path / "users").write_text(made_users.stdout)
    options = ServiceOptions(address="127.0.0.1:0", access=Access(str(tmp_path / "users")))
    with embedded_registry(tmp_path / "closed", options) as closed:
        found = daemon.docker.login("me", "geheim!", registry=closed.host)
        assert found["Status"] == "Login Succeeded"
        with pytest.raises(docker.errors.APIError) as caught:
            daemon.docker.api.login("me", "wrong", registry=closed.host, reauth=True)
        assert caught.value.status_code == 401
        made(daemon, f"{closed.host}/mine:1")
        login = {"username": "me", "password": "geheim!"}
        told = list(
            daemon.docker.api.push(
                f"{closed.host}/mine", tag="1", stream=True, decode=True, auth_config=login
            )
        )
        assert "aux" in told[-1]
        daemon.docker.images.remove(f"{closed.host}/mine:1")
        assert daemon.docker.images.pull(f"{closed.host}/mine", tag="1", auth_config=login).tags
        assert (
            daemon.http.post(
                "/images/create", params={"fromImage": f"{closed.host}/mine", "tag": "1"}
            ).status_code
            == 403
        )


# --- archives -------------------------------------------------------------------------------------------------------


def test_what_is_saved_can_be_loaded(daemon: Daemon) -> None:
    image = made(daemon, "one:1")
    made(daemon, "two:1", "FROM scratch\nCOPY a /b\n")
    saved = b"".join(daemon.docker.images.get("one:1").save(named=True))
    several = daemon.http.get("/images/get", params={"names": ["one:1", "two:1"]})
    assert several.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(several.content)) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        assert [each["RepoTags"] for each in json.load(manifest)] == [["one:1"], ["two:1"]]
    daemon.docker.images.remove("one:1")
    answer = daemon.http.post("/images/load", content=saved)
    assert answer.text == '{"stream":"Loaded image: one:1\\n"}\r\n'
    assert daemon.docker.images.get("one:1").id == image
    assert daemon.http.get("/images/nope/get").status_code == 404
    broken = daemon.http.post("/images/load", content=b"no archive at all")
    assert broken.status_code == 400


def test_a_root_file_system_is_imported(daemon: Daemon) -> None:
    body = make_tar(Entry("etc/passwd", b"root:x:0:0::/:\n"))
    query = {
        "fromSrc": "-",
        "repo": "imported",
        "tag": "1",
        "message": "by hand",
        "changes": ['CMD ["sh"]', "ENV A=1"],
    }
    answer = daemon.http.post("/images/create", params=query, content=body)
    image = daemon.docker.images.get("imported:1")
    assert answer.json() == {"status": image.id}
    assert image.attrs["Config"]["Cmd"] == ["sh"]
    assert image.attrs["Comment"] == "by hand"
    wrong = daemon.http.post("/images/create", params={**query, "changes": ["COPY a /a"]}, content=body)
    assert wrong.status_code == 400


# --- events and disk use --------------------------------------------------------------------------------------------


def test_events_tell_what_was_and_what_happens(daemon: Daemon) -> None:
    begun = time.time()
    image = made(daemon, "one:1")
    past = list(daemon.docker.events(since=int(begun), until=int(time.time()) + 1, decode=True))
    assert ("image", "tag", "one:1") in {
        (each["Type"], each["Action"], each["Actor"]["Attributes"]["name"]) for each in past
    }
    for each in past:
        conforms("EventMessage", each)
    listening = daemon.docker.events(decode=True, filters={"type": "image", "event": ["untag", "delete"]})
    daemon.docker.images.get("one:1").tag("two:1")
    daemon.docker.images.remove("two:1")
    daemon.docker.images.remove("one:1")
    told = [next(listening), next(listening)]
    listening.close()
    assert [(each["Action"], each["id"]) for each in told] == [("untag", image), ("delete", image)]


def test_a_listener_that_goes_away_is_forgotten(daemon: Daemon) -> None:
    listening = daemon.docker.events()
    assert daemon.docker.info()["NEventsListener"] == 1
    listening.close()
    while daemon.docker.info()["NEventsListener"]:
        pass


def test_disk_use_is_told_by_kind(daemon: Daemon) -> None:
    made(daemon, "one:1")
    record = daemon.docker.df()
    assert [each["RepoTags"] for each in record["Images"]] == [["one:1"]]
    assert record["LayersSize"] == record["Images"][0]["Size"]
    assert [each["Type"] for each in record["BuildCache"]] == ["regular"]
    for each in record["BuildCache"]:
        conforms("BuildCache", each)
    only = daemon.http.get("/system/df", params={"type": "volume"}).json()
    assert only["Volumes"] == [] and only["Images"] is None
    assert daemon.http.get("/system/df", params={"type": "nope"}).status_code == 400
