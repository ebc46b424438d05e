"""The embedded registry and the distribution spec, request by request (FEATURES C-28 to C-35)."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry_client.oci import media_types
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import digest_of
from registry_client.oci.manifest import make_index, make_manifest
from registry_client.oci.platform import Platform
from runtime.registry.access import Access
from runtime.registry.service import ServiceOptions
from tests.support.embedded_registry import Served, embedded_registry
from tests.support.registry_images import SmallImage, small_image

NAME = "shop/app"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with embedded_registry(tmp_path) as running:
        yield running


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


@pytest.fixture
def image(served: Served) -> SmallImage:
    """An image that was pushed as `shop/app:1`."""
    made = small_image()
    served.push(NAME, "1", made)
    return made


def codes(answer: httpx.Response) -> list[str]:
    return [error["code"] for error in answer.json()["errors"]]


def begin(http: httpx.Client, name: str = NAME) -> str:
    answer = http.post(f"/v2/{name}/blobs/uploads/")
    assert answer.status_code == 202
    return answer.headers["location"]


def upload(http: httpx.Client, data: bytes, name: str = NAME) -> str:
    digest = digest_of(data)
    answer = http.put(begin(http, name), params={"digest": digest}, content=data)
    assert answer.status_code == 201, answer.text
    return digest


def put_manifest(
    http: httpx.Client, selector: str, raw: bytes, kind: str = media_types.OCI_MANIFEST
) -> httpx.Response:
    return http.put(f"/v2/{NAME}/manifests/{selector}", content=raw, headers={"Content-Type": kind})


def artifact(http: httpx.Client, **extra: Any) -> bytes:
    """A manifest that is no image; its empty config and layer are uploaded."""
    upload(http, b"{}")
    empty = Descriptor(media_types.OCI_EMPTY, digest_of(b"{}"), 2).to_json()
    record = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": empty,
        "layers": [empty],
        **extra,
    }
    return json.dumps(record).encode()


# ── C-28: reading ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_says_that_it_is_a_registry(http: httpx.Client) -> None:
    answer = http.get("/v2/")
    assert answer.status_code == 200
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


def test_manifests_are_read_with_digest_length_and_stored_type(http: httpx.Client, image: SmallImage) -> None:
    for selector in ("1", image.manifest.digest):
        for method in ("GET", "HEAD"):
            answer = http.request(method, f"/v2/{NAME}/manifests/{selector}")
            assert answer.status_code == 200
            assert answer.headers["docker-content-digest"] == image.manifest.digest
            assert answer.headers["content-type"] == media_types.OCI_MANIFEST
            assert answer.headers["content-length"] == str(len(image.manifest.raw))
            assert answer.content == (image.manifest.raw if method == "GET" else b"")


def test_blobs_are_read_with_digest_and_length(http: httpx.Client, image: SmallImage) -> None:
    descriptor, data = image.layer
    for method in ("GET", "HEAD"):
        answer = http.request(method, f"/v2/{NAME}/blobs/{descriptor.digest}")
        assert answer.status_code == 200
        assert answer.headers["docker-content-digest"] == descriptor.digest
        assert answer.headers["content-length"] == str(len(data))
        assert answer.content == (data if method == "GET" else b"")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"/v2/{NAME}/manifests/absent", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/{NAME}/manifests/{digest_of(b'x')}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/{NAME}/blobs/{digest_of(b'x')}", 404, "BLOB_UNKNOWN"),
        ("/v2/no/such/tags/list", 404, "NAME_UNKNOWN"),
        (f"/v2/{NAME}/blobs/sha256:abc", 400, "DIGEST_INVALID"),
        (f"/v2/{NAME}/manifests/sha256:abc", 400, "DIGEST_INVALID"),
        (f"/v2/{NAME}/manifests/.dot", 400, "TAG_INVALID"),
        ("/v2/Shop/App/manifests/1", 400, "NAME_INVALID"),
        ("/v2/a..b/tags/list", 400, "NAME_INVALID"),
        ("/v2/../etc/passwd/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/a/%2e%2e/b/tags/list", 400, "NAME_INVALID"),
        (f"/v2/{NAME}/blobs/uploads/nobody", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("/v2/x", 404, "NAME_UNKNOWN"),
        ("/", 404, "NAME_UNKNOWN"),
    ],
)
def test_what_cannot_be_read_is_told_in_the_errors_envelope(
    http: httpx.Client, path: str, status: int, code: str
) -> None:
    answer = http.get(path)
    assert (answer.status_code, codes(answer)) == (status, [code])
    assert answer.headers["content-type"] == "application/json"


def test_a_verb_that_does_not_exist_is_unsupported(http: httpx.Client) -> None:
    answer = http.post(f"/v2/{NAME}/tags/list")
    assert (answer.status_code, codes(answer)) == (405, ["UNSUPPORTED"])


# ── C-34: parts and revalidation ────────────────────────────────────────────────────────────────────────────────────


def test_parts_of_blobs_can_be_read(http: httpx.Client, image: SmallImage) -> None:
    descriptor, data = image.layer
    answer = http.get(f"/v2/{NAME}/blobs/{descriptor.digest}", headers={"Range": "bytes=10-19"})
    assert (answer.status_code, answer.content) == (206, data[10:20])
    assert answer.headers["content-range"] == f"bytes 10-19/{len(data)}"
    behind = http.get(f"/v2/{NAME}/blobs/{descriptor.digest}", headers={"Range": f"bytes={len(data)}-"})
    assert behind.status_code == 416


def test_what_one_has_is_not_sent_again(http: httpx.Client, image: SmallImage) -> None:
    for path in (f"/v2/{NAME}/manifests/1", f"/v2/{NAME}/blobs/{image.layer[0].digest}"):
        etag = http.head(path).headers["etag"]
        again = http.get(path, headers={"If-None-Match": etag})
        assert (again.status_code, again.content) == (304, b"")


# ── C-29: uploads ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_upload_begins_with_a_location_and_an_empty_range(http: httpx.Client) -> None:
    answer = http.post(f"/v2/{NAME}/blobs/uploads/")
    assert answer.status_code == 202
    assert answer.headers["range"] == "0-0"
    assert answer.headers["docker-upload-uuid"] in answer.headers["location"]


@pytest.mark.parametrize("data", [b"", b"x", b"hello" * 1000])
def test_a_blob_can_be_sent_with_the_post(http: httpx.Client, data: bytes) -> None:
    digest = digest_of(data)
    answer = http.post(f"/v2/{NAME}/blobs/uploads/", params={"digest": digest}, content=data)
    assert answer.status_code == 201
    assert http.get(answer.headers["location"]).content == data


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(300_000)])
def test_a_blob_can_be_sent_with_the_put(http: httpx.Client, data: bytes) -> None:
    assert http.get(f"/v2/{NAME}/blobs/{upload(http, data)}").content == data


def test_a_blob_can_be_sent_in_chunks(http: httpx.Client) -> None:
    data = os.urandom(250_000)
    location = begin(http)
    for start in (0, 100_000):
        chunk = data[start : start + 100_000]
        headers = {"Content-Range": f"{start}-{start + len(chunk) - 1}"}
        answer = http.patch(location, content=chunk, headers=headers)
        assert (answer.status_code, answer.headers["range"]) == (202, f"0-{start + len(chunk) - 1}")
        location = answer.headers["location"]
    status = http.get(location)
    assert (status.status_code, status.headers["range"]) == (204, "0-199999")
    headers = {"Content-Range": "200000-249999"}
    answer = http.put(location, params={"digest": digest_of(data)}, content=data[200_000:], headers=headers)
    assert answer.status_code == 201
    assert http.get(answer.headers["location"]).content == data
    assert http.get(location).status_code == 404


def test_a_chunk_out_of_order_is_refused_and_told_where_to_go_on(http: httpx.Client) -> None:
    location = begin(http)
    http.patch(location, content=b"12345", headers={"Content-Range": "0-4"})
    for start, end in ((0, 4), (6, 10)):
        answer = http.patch(location, content=b"67890", headers={"Content-Range": f"{start}-{end}"})
        assert (answer.status_code, answer.headers["range"]) == (416, "0-4")
    assert http.patch(location, content=b"67890", headers={"Content-Range": "5-9"}).status_code == 202
    assert http.put(location, params={"digest": digest_of(b"1234567890")}).status_code == 201


@pytest.mark.parametrize("text", ["5", "9-5", "a-b", "0-99"])
def test_a_senseless_range_is_refused(http: httpx.Client, text: str) -> None:
    assert http.patch(begin(http), content=b"12345", headers={"Content-Range": text}).status_code in (
        400,
        416,
    )


def test_a_stream_without_range_is_appended(http: httpx.Client) -> None:
    location = begin(http)
    http.patch(location, content=iter([b"abc", b"def"]))
    http.patch(location, content=b"ghi")
    assert http.put(location, params={"digest": digest_of(b"abcdefghi")}).status_code == 201


def test_the_whole_blob_must_match_its_digest(http: httpx.Client) -> None:
    location = begin(http)
    http.patch(location, content=b"abc")
    answer = http.put(location, params={"digest": digest_of(b"def")}, content=b"def")
    assert (answer.status_code, codes(answer)) == (400, ["DIGEST_INVALID"])
    assert http.get(f"/v2/{NAME}/blobs/{digest_of(b'def')}").status_code == 404
    assert http.put(begin(http), params={"digest": "sha256:12"}, content=b"x").status_code == 400
    assert http.put(begin(http), content=b"x").status_code == 400


def test_a_sha512_blob_is_taken(http: httpx.Client) -> None:
    digest = "sha512:" + hashlib.sha512(b"long hash").hexdigest()
    location = begin(http)
    http.patch(location, content=b"long ")
    assert http.put(location, params={"digest": digest}, content=b"hash").status_code == 201
    assert http.get(f"/v2/{NAME}/blobs/{digest}").content == b"long hash"
    assert http.put(begin(http), params={"digest": digest}, content=b"other").status_code == 400


def test_an_upload_can_be_given_up(http: httpx.Client, served: Served) -> None:
    location = begin(http)
    http.patch(location, content=b"abc")
    assert http.delete(location).status_code == 204
    assert codes(http.get(location)) == ["BLOB_UPLOAD_UNKNOWN"]
    assert http.patch(location, content=b"def").status_code == 404
    assert os.listdir(served.store.content.ingest) == []


def test_an_upload_belongs_to_its_repository(http: httpx.Client) -> None:
    elsewhere = begin(http).replace(NAME, "other/app")
    assert http.patch(elsewhere, content=b"x").status_code == 404


def test_a_blob_is_mounted_from_another_repository_or_from_anywhere(
    http: httpx.Client, image: SmallImage
) -> None:
    digest = image.layer[0].digest
    for query in ({"mount": digest, "from": NAME}, {"mount": digest}):
        answer = http.post("/v2/other/name/blobs/uploads/", params=query)
        assert answer.status_code == 201
        assert answer.headers["location"] == f"/v2/other/name/blobs/{digest}"
        assert http.head(answer.headers["location"]).status_code == 200


def test_a_mount_of_what_is_not_there_begins_an_upload(http: httpx.Client) -> None:
    for query in ({"mount": digest_of(b"absent"), "from": NAME}, {"mount": digest_of(b"absent")}):
        answer = http.post("/v2/other/name/blobs/uploads/", params=query)
        assert answer.status_code == 202
        assert "/blobs/uploads/" in answer.headers["location"]


def test_the_same_blob_may_come_several_times_at_once(http: httpx.Client, served: Served) -> None:
    data = os.urandom(2_000_000)
    barrier = threading.Barrier(6)

    def push(number: int) -> int:
        location = begin(http, f"shop/{number}")
        barrier.wait(60)
        return http.put(location, params={"digest": digest_of(data)}, content=data).status_code

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(push, range(6))) == [201] * 6
    assert http.get(f"/v2/{NAME}/blobs/{digest_of(data)}").content == data
    assert os.listdir(served.store.content.ingest) == []


def test_two_requests_cannot_write_one_upload_at_once(http: httpx.Client, served: Served) -> None:
    location = begin(http)
    sent, go_on = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b"first"
        sent.set()
        assert go_on.wait(60)
        yield b"second"

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: http.patch(location, content=slowly()).status_code)
        assert sent.wait(60)
        wait_for_bytes(served, len(b"first"))
        second = http.patch(location, content=b"")
        go_on.set()
        assert second.status_code == 409
        assert first.result(60) == 202
    assert http.get(location).headers["range"] == "0-10"


def wait_for_bytes(served: Served, count: int) -> None:
    """Until the one upload that is under way has so many."""
    deadline = time.monotonic() + 60
    while sum(entry.stat().st_size for entry in os.scandir(served.store.content.ingest)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_upload_goes_on_after_a_restart(tmp_path: Path) -> None:
    with embedded_registry(tmp_path) as served, httpx.Client(base_url=served.url, timeout=60) as http:
        location = begin(http)
        http.patch(location, content=b"before ")
    with embedded_registry(tmp_path) as served, httpx.Client(base_url=served.url, timeout=60) as http:
        assert http.get(location).headers["range"] == "0-6"
        answer = http.put(location, params={"digest": digest_of(b"before after")}, content=b"after")
        assert answer.status_code == 201


# ── C-30: manifests ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_manifest_keeps_its_exact_bytes_and_unknown_fields(http: httpx.Client) -> None:
    raw = json.dumps(json.loads(artifact(http, custom={"a": [1, None]})), indent=7).encode()
    answer = put_manifest(http, "odd", raw)
    assert answer.status_code == 201
    assert answer.headers["docker-content-digest"] == digest_of(raw)
    assert http.get(answer.headers["location"]).content == raw


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_manifest_put_by_digest_must_have_it(http: httpx.Client, algorithm: str) -> None:
    raw = artifact(http)
    digest = f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"
    answer = put_manifest(http, digest, raw)
    assert (answer.status_code, answer.headers["docker-content-digest"]) == (201, digest)
    assert http.get(f"/v2/{NAME}/manifests/{digest}").content == raw
    refused = put_manifest(http, digest, raw + b" ")
    assert (refused.status_code, codes(refused)) == (400, ["DIGEST_INVALID"])


def test_tags_can_be_given_with_a_digest(http: httpx.Client) -> None:
    raw = artifact(http)
    answer = put_manifest(http, f"{digest_of(raw)}?tag=a&tag=b", raw)
    assert answer.headers["oci-tag"] == "a, b"
    assert http.get(f"/v2/{NAME}/tags/list").json()["tags"] == ["a", "b"]


def test_the_blobs_of_a_manifest_must_be_there(http: httpx.Client) -> None:
    missing = Descriptor(media_types.OCI_CONFIG, digest_of(b"absent"), 6)
    for raw, kind in (
        (make_manifest(missing, ()).raw, media_types.OCI_MANIFEST),
        (
            make_index((Descriptor(media_types.OCI_MANIFEST, digest_of(b"absent"), 6),)).raw,
            media_types.OCI_INDEX,
        ),
    ):
        answer = put_manifest(http, "1", raw, kind)
        assert (answer.status_code, codes(answer)) == (400, ["MANIFEST_BLOB_UNKNOWN"])


def test_layers_that_live_elsewhere_need_not_be_there(http: httpx.Client) -> None:
    upload(http, b"{}")
    config = Descriptor("application/x", digest_of(b"{}"), 2)
    foreign = Descriptor(
        media_types.DOCKER_LAYER_FOREIGN, digest_of(b"far"), 3, urls=("https://example.com/layer",)
    )
    hidden = Descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar", digest_of(b"away"), 4)
    assert put_manifest(http, "1", make_manifest(config, (foreign, hidden)).raw).status_code == 201


def test_a_subject_need_not_be_there_yet(http: httpx.Client) -> None:
    subject = Descriptor(media_types.OCI_MANIFEST, digest_of(b"later"), 5)
    answer = put_manifest(http, "sig", artifact(http, subject=subject.to_json()))
    assert (answer.status_code, answer.headers["oci-subject"]) == (201, subject.digest)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", media_types.OCI_MANIFEST),
        (b"nonsense", media_types.OCI_MANIFEST),
        (b'{"schemaVersion": 1}', "application/vnd.docker.distribution.manifest.v1+json"),
        (make_index(()).raw, media_types.OCI_MANIFEST),
    ],
)
def test_what_is_no_manifest_is_refused(http: httpx.Client, raw: bytes, kind: str) -> None:
    answer = put_manifest(http, "1", raw, kind)
    assert (answer.status_code, codes(answer)) == (400, ["MANIFEST_INVALID"])


def test_large_manifests_are_taken_and_enormous_ones_are_not(http: httpx.Client) -> None:
    four = artifact(http, annotations={"big": "x" * (4 << 20)})
    assert put_manifest(http, "big", four).status_code == 201
    assert http.get(f"/v2/{NAME}/manifests/big").content == four
    answer = put_manifest(http, "huge", artifact(http, annotations={"big": "x" * (9 << 20)}))
    assert (answer.status_code, codes(answer)) == (413, ["SIZE_INVALID"])


def test_indexes_are_taken_also_nested_and_empty(http: httpx.Client, image: SmallImage) -> None:
    inner = make_index((image.manifest.descriptor,))
    assert put_manifest(http, "inner", inner.raw, media_types.OCI_INDEX).status_code == 201
    outer = make_index((inner.descriptor,))
    assert put_manifest(http, "outer", outer.raw, media_types.OCI_INDEX).status_code == 201
    assert put_manifest(http, "none", make_index(()).raw, media_types.OCI_INDEX).status_code == 201
    assert http.get(f"/v2/{NAME}/manifests/outer").headers["content-type"] == media_types.OCI_INDEX


def test_a_tag_moves_to_what_was_pushed_last(http: httpx.Client, served: Served) -> None:
    for content in (b"one", b"two"):
        made = small_image(content)
        served.push(NAME, "latest", made)
        assert http.get(f"/v2/{NAME}/manifests/latest").content == made.manifest.raw
    raw = artifact(http)
    put_manifest(http, "latest", raw)
    assert http.get(f"/v2/{NAME}/manifests/latest").content == raw
    assert served.images.find(f"{NAME}:latest") is None


# ── C-31: lists ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tags_are_sorted_and_come_in_pages(http: httpx.Client, image: SmallImage, served: Served) -> None:
    for tag in ("c", "a", "b", "B", "0.9"):
        put_manifest(http, tag, image.manifest.raw)
    everything = ["0.9", "1", "B", "a", "b", "c"]
    assert http.get(f"/v2/{NAME}/tags/list").json() == {"name": NAME, "tags": everything}
    page = http.get(f"/v2/{NAME}/tags/list", params={"n": 4})
    assert page.json()["tags"] == everything[:4]
    link = page.headers["link"]
    assert link.endswith('>; rel="next"')
    rest = http.get(link[1 : link.index(">")])
    assert rest.json()["tags"] == everything[4:]
    assert "link" not in rest.headers
    assert http.get(f"/v2/{NAME}/tags/list", params={"n": 0}).json()["tags"] == []
    assert http.get(f"/v2/{NAME}/tags/list", params={"last": "b"}).json()["tags"] == ["c"]
    assert http.get(f"/v2/{NAME}/tags/list", params={"n": "many"}).status_code == 400
    assert sorted(served.client.tags(NAME)) == everything


def test_a_repository_without_tags_has_an_empty_list(http: httpx.Client) -> None:
    raw = artifact(http)
    put_manifest(http, digest_of(raw), raw)
    assert http.get(f"/v2/{NAME}/tags/list").json() == {"name": NAME, "tags": []}


def test_the_catalog_names_all_repositories(http: httpx.Client, served: Served) -> None:
    for name in ("b/two", "a/one", "c"):
        served.push(name, "1", small_image())
    assert http.get("/v2/_catalog").json() == {"repositories": ["a/one", "b/two", "c"]}
    assert http.get("/v2/_catalog", params={"n": 1, "last": "a/one"}).json() == {"repositories": ["b/two"]}


# ── C-32: referrers ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_referrers_are_listed_with_their_type_and_annotations(
    http: httpx.Client, image: SmallImage, served: Served
) -> None:
    subject = image.manifest.descriptor.to_json()
    typed = artifact(http, artifactType="application/sbom", annotations={"k": "v"}, subject=subject)
    plain = artifact(http, subject=subject)
    for raw in (typed, plain):
        put_manifest(http, digest_of(raw), raw)
    index = (
        make_index(()).raw[:-1] + b',"subject":' + json.dumps(subject).encode() + b',"artifactType":"x/y"}'
    )
    put_manifest(http, digest_of(index), index, media_types.OCI_INDEX)
    answer = http.get(f"/v2/{NAME}/referrers/{image.manifest.digest}")
    assert answer.headers["content-type"] == media_types.OCI_INDEX
    found = {entry["digest"]: entry for entry in answer.json()["manifests"]}
    assert found[digest_of(typed)]["artifactType"] == "application/sbom"
    assert found[digest_of(typed)]["annotations"] == {"k": "v"}
    assert found[digest_of(typed)]["size"] == len(typed)
    assert found[digest_of(plain)]["artifactType"] == media_types.OCI_EMPTY  # the config's media type
    assert found[digest_of(index)]["mediaType"] == media_types.OCI_INDEX
    only = http.get(f"/v2/{NAME}/referrers/{image.manifest.digest}", params={"artifactType": "x/y"})
    assert only.headers["oci-filters-applied"] == "artifactType"
    assert [entry["digest"] for entry in only.json()["manifests"]] == [digest_of(index)]
    assert len(served.client.referrers(NAME, image.manifest.digest)) == 3


def test_nothing_refers_to_what_nobody_knows(http: httpx.Client) -> None:
    answer = http.get(f"/v2/no/such/referrers/{digest_of(b'x')}")
    assert (answer.status_code, answer.json()["manifests"]) == (200, [])
    assert http.get("/v2/no/such/referrers/sha256:12").status_code == 400


# ── C-33: deleting ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_deleted_tag_leaves_the_manifest(http: httpx.Client, image: SmallImage) -> None:
    put_manifest(http, "2", image.manifest.raw)
    assert http.delete(f"/v2/{NAME}/manifests/1").status_code == 202
    assert http.get(f"/v2/{NAME}/manifests/1").status_code == 404
    assert http.get(f"/v2/{NAME}/manifests/2").status_code == 200
    assert http.get(f"/v2/{NAME}/manifests/{image.manifest.digest}").status_code == 200
    assert http.get(f"/v2/{NAME}/tags/list").json()["tags"] == ["2"]
    assert http.delete(f"/v2/{NAME}/manifests/1").status_code == 404


def test_a_deleted_manifest_takes_all_its_tags_along(
    http: httpx.Client, image: SmallImage, served: Served
) -> None:
    put_manifest(http, "2", image.manifest.raw)
    other = small_image(b"other")
    served.push(NAME, "3", other)
    assert http.delete(f"/v2/{NAME}/manifests/{image.manifest.digest}").status_code == 202
    for selector in ("1", "2", image.manifest.digest):
        assert http.get(f"/v2/{NAME}/manifests/{selector}").status_code == 404
    assert http.get(f"/v2/{NAME}/tags/list").json()["tags"] == ["3"]
    assert http.delete(f"/v2/{NAME}/manifests/{image.manifest.digest}").status_code == 404


def test_a_deleted_blob_is_gone_from_its_repository_until_it_comes_again(
    http: httpx.Client, image: SmallImage
) -> None:
    digest, data = image.layer[0].digest, image.layer[1]
    served_elsewhere = http.post("/v2/other/name/blobs/uploads/", params={"mount": digest, "from": NAME})
    assert http.delete(f"/v2/{NAME}/blobs/{digest}").status_code == 202
    for method in ("GET", "HEAD", "DELETE"):
        assert http.request(method, f"/v2/{NAME}/blobs/{digest}").status_code == 404
    assert http.get(served_elsewhere.headers["location"]).content == data
    assert http.post("/v2/third/blobs/uploads/", params={"mount": digest, "from": NAME}).status_code == 202
    assert put_manifest(http, "again", image.manifest.raw).status_code == 400
    assert http.put(begin(http), params={"digest": digest}, content=data).status_code == 201
    assert http.get(f"/v2/{NAME}/blobs/{digest}").content == data


# ── C-35: logins ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[httpx.Client]:
    import bcrypt

    passwords = tmp_path / "htpasswd"
    passwords.write_bytes(b"# users\n\nci:" + bcrypt.hashpw(b"right", bcrypt.gensalt(4)) + b"\n")
    options = ServiceOptions(address="127.0.0.1:0", access=Access(str(passwords)))
    with (
        embedded_registry(tmp_path, options) as served,
        httpx.Client(base_url=served.url, timeout=60) as client,
    ):
        yield client


def test_with_a_password_file_one_has_to_log_in(guarded: httpx.Client) -> None:
    answer = guarded.get("/v2/")
    assert (answer.status_code, codes(answer)) == (401, ["UNAUTHORIZED"])
    assert answer.headers["www-authenticate"].startswith("Basic realm=")
    for _ in range(2):
        assert guarded.get("/v2/", auth=("ci", "right")).status_code == 200
        assert guarded.get("/v2/", auth=("ci", "wrong")).status_code == 401
        assert guarded.get("/v2/", auth=("nobody", "right")).status_code == 401
    assert guarded.get("/v2/", headers={"Authorization": "Basic !!!"}).status_code == 401
    assert guarded.post(f"/v2/{NAME}/blobs/uploads/").status_code == 401
    assert guarded.post(f"/v2/{NAME}/blobs/uploads/", auth=("ci", "right")).status_code == 202


def test_reading_can_be_left_open(tmp_path: Path) -> None:
    (tmp_path / "none").write_text("")
    access = Access(str(tmp_path / "none"), anonymous_read=True)
    options = ServiceOptions(address="127.0.0.1:0", access=access)
    with (
        embedded_registry(tmp_path, options) as served,
        httpx.Client(base_url=served.url, timeout=60) as client,
    ):
        assert client.get("/v2/_catalog").status_code == 200
        assert client.post(f"/v2/{NAME}/blobs/uploads/").status_code == 401


@pytest.mark.parametrize(
    ("host", "status"), [("localhost:1", 202), ("127.0.0.1", 202), ("[::1]:5", 202), ("evil.example", 403)]
)
def test_without_passwords_nobody_writes_under_a_strangers_name(
    http: httpx.Client, host: str, status: int
) -> None:
    assert http.post(f"/v2/{NAME}/blobs/uploads/", headers={"Host": host}).status_code == status
    assert http.get("/v2/", headers={"Host": host}).status_code == 200


# ── the store behind it ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pushed_image_is_an_image_of_the_store(image: SmallImage, served: Served) -> None:
    found = served.images.get(f"{NAME}:1")
    assert found.manifest_digest == image.manifest.digest
    snapshot = served.images.snapshot(found)
    assert snapshot is not None
    assert (Path(served.store.root) / "snapshots" / snapshot / "fs" / "hello").read_bytes() == b"hello\n"


def test_the_index_of_a_pushed_image_names_the_one_for_this_host(http: httpx.Client, served: Served) -> None:
    from registry_client.oci.platform import host_platform

    mine, foreign = small_image(b"mine"), small_image(b"foreign")
    entries = []
    for made, platform in ((foreign, Platform("linux", "s390x")), (mine, host_platform())):
        served.push(NAME, made.manifest.digest, made)
        entries.append(
            Descriptor(
                media_types.OCI_MANIFEST, made.manifest.digest, len(made.manifest.raw), platform=platform
            )
        )
    index = make_index(tuple(entries))
    put_manifest(http, "multi", index.raw, media_types.OCI_INDEX)
    assert served.images.get(f"{NAME}:multi").manifest_digest == mine.manifest.digest
    assert http.get(f"/v2/{NAME}/manifests/multi").content == index.raw


def test_an_image_that_was_tagged_or_removed_in_the_store_changes_the_registry(
    http: httpx.Client, image: SmallImage, served: Served
) -> None:
    served.images.tag(f"{NAME}:1", "other/name:x")
    assert http.get("/v2/other/name/manifests/x").content == image.manifest.raw
    served.images.untag(f"{NAME}:1")
    assert http.get(f"/v2/{NAME}/manifests/1").status_code == 404
    assert http.get("/v2/other/name/tags/list").json()["tags"] == ["x"]


def test_a_later_local_tag_wins_over_what_was_pushed(
    http: httpx.Client, image: SmallImage, served: Served
) -> None:
    other = small_image(b"built later")
    served.push("build/result", "1", other)
    served.images.tag("build/result:1", f"{NAME}:1")
    assert http.get(f"/v2/{NAME}/manifests/1").content == other.manifest.raw


def test_names_of_this_registry_are_its_own_repositories(
    http: httpx.Client, image: SmallImage, served: Served
) -> None:
    port = served.host.rpartition(":")[2]
    served.images.tag(f"{NAME}:1", f"localhost:{port}/web/front:2")
    served.images.tag(f"{NAME}:1", "quay.io/team/tool:3")
    served.images.tag(f"{NAME}:1", "elsewhere:5000/hidden:4")
    served.images.tag(f"{NAME}:1", "busybox:5")
    assert http.get("/v2/_catalog").json()["repositories"] == [
        "busybox",
        "quay.io/team/tool",
        NAME,
        "web/front",
    ]
    for name, tag in (
        ("web/front", "2"),
        ("quay.io/team/tool", "3"),
        ("busybox", "5"),
        ("library/busybox", "5"),
    ):
        assert http.get(f"/v2/{name}/manifests/{tag}").content == image.manifest.raw


def test_a_push_of_what_is_there_stores_nothing_twice(image: SmallImage, served: Served) -> None:
    blobs = Path(served.store.root) / "blobs" / "sha256"
    before = {path.name: path.stat().st_ino for path in blobs.iterdir()}
    served.push("other/name", "1", image)
    assert {path.name: path.stat().st_ino for path in blobs.iterdir()} == before


def test_the_collector_keeps_what_is_served_and_takes_what_was_deleted(
    http: httpx.Client, image: SmallImage, served: Served
) -> None:
    raw = artifact(http)
    put_manifest(http, "chart", raw)
    loose = upload(http, b"its manifest is on its way")
    served.store.collect()
    for digest in (image.manifest.digest, image.layer[0].digest, digest_of(raw), loose):
        assert served.store.content.has(digest), digest
    put_manifest(http, "old", artifact(http, annotations={"a": "b"}))
    with served.store.db.transaction() as connection:
        connection.execute("UPDATE registry_manifests SET pushed = pushed - 8 * 86400")
        connection.execute("UPDATE registry_blobs SET seen = seen - 2 * 86400")
    http.delete(f"/v2/{NAME}/manifests/chart")
    served.store.collect()
    assert http.get(f"/v2/{NAME}/manifests/1").status_code == 200
    assert http.get(f"/v2/{NAME}/blobs/{image.layer[0].digest}").status_code == 200
    assert http.get(f"/v2/{NAME}/manifests/old").status_code == 200
    assert not served.store.content.has(digest_of(raw))
    assert http.get(f"/v2/{NAME}/manifests/{digest_of(raw)}").status_code == 404
    assert not served.store.content.has(loose)


def test_an_image_that_was_removed_frees_its_space(image: SmallImage, served: Served) -> None:
    served.images.remove(f"{NAME}:1")
    served.store.collect()
    assert not served.store.content.has(image.manifest.digest)
    assert not served.store.content.has(image.layer[0].digest)
