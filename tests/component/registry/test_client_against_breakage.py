"""Our client and a registry that cuts connections, forgets, and says no in the middle."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registry_client.client import RegistryClient
from registry_client.errors import Invalid, Rejected, Unreachable
from registry_client.oci import media_types
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import digest_of
from registry_client.patience import Patience
from registry_client.uploads import Pushed
from runtime.cancel import Cancel
from runtime.errors import Cancelled
from runtime.events import Event, Warned
from runtime.http.messages import Request, Response
from runtime.http.server import Server, listen_tcp
from runtime.images.images import Images
from runtime.images.transport import RegistryTransport
from runtime.store import Store
from tests.support.fake_registry import Answer, Asked, Cut, FakeRegistry, fake_registry
from tests.support.registry_images import opener

DATA = bytes(range(251)) * 20_000  # 5 MB
BLOB = Descriptor(media_types.OCI_LAYER, digest_of(DATA), len(DATA))


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with fake_registry() as running:
        yield running


@pytest.fixture
def client(fake: FakeRegistry) -> Iterator[RegistryClient]:
    patience = Patience(5, sleep=lambda seconds: None)
    with RegistryClient(fake.host, plain_http=True, patience=patience) as connected:
        yield connected


# ── pulling ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pull_survives_connections_cut_in_the_middle(fake: FakeRegistry, client: RegistryClient) -> None:
    def answer(asked: Asked) -> Answer:
        start = int(re.findall(r"\d+", asked.headers.get("Range", "0"))[0])
        headers = {"Content-Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"} if start else {}
        return Answer(206 if start else 200, headers, DATA[start:], cut_after=1_000_000)

    fake.answer = answer
    with client.blob("a/b", BLOB.digest, size=BLOB.size) as chunks:
        assert b"".join(chunks) == DATA
    starts = [asked.headers.get("Range") for asked in fake.asked]
    assert len(starts) == 6
    assert starts[0] is None
    assert starts[1:] == [f"bytes={n}-" for n in range(1_000_000, 5_020_000, 1_000_000)]


def test_a_pull_waits_out_a_registry_that_is_busy(fake: FakeRegistry, client: RegistryClient) -> None:
    answers = [Answer(429, {"Retry-After": "0"}), Answer(503), Answer(200, {}, DATA)]
    fake.answer = lambda asked: answers.pop(0)
    with client.blob("a/b", BLOB.digest) as chunks:
        assert b"".join(chunks) == DATA


def test_a_manifest_that_broke_off_is_fetched_again(fake: FakeRegistry, client: RegistryClient) -> None:
    raw = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    answers = [Answer(200, {}, raw, cut_after=5), Answer(200, {}, raw)]
    fake.answer = lambda asked: answers.pop(0)
    assert client.manifest("a/b", "1")[0] == raw


def test_a_registry_that_is_gone_is_told_as_such(fake: FakeRegistry) -> None:
    with fake_registry() as other:
        host = other.host
    with RegistryClient(host) as client, pytest.raises(Unreachable, match="no answer from") as caught:
        client.manifest("a/b", "1")
    assert "running" in caught.value.hint


def test_threads_that_begin_together_find_the_scheme_out_once(fake: FakeRegistry) -> None:
    together = threading.Barrier(5)

    def answer(asked: Asked) -> Answer:
        return Answer(200 if asked.path == "/v2/" else 404)

    def look() -> None:
        together.wait(60)
        client.has_blob("shop/app", digest_of(b"x"))

    fake.answer = answer
    with RegistryClient(fake.host) as client:
        threads = [threading.Thread(target=look) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [asked.path for asked in fake.asked].count("/v2/") == 1


def test_a_transfer_that_hangs_can_be_broken_off() -> None:
    released = threading.Event()

    def hang(request: Request) -> Response:
        def body() -> Iterator[bytes]:
            yield b"the beginning"
            released.wait(60)

        return Response(200, {"Content-Length": str(BLOB.size)}, body())

    begun = threading.Event()

    def pull(client: RegistryClient) -> None:
        with client.blob("a/b", BLOB.digest, size=BLOB.size) as chunks:
            next(chunks)
            begun.set()
            next(chunks)

    with (
        Server(hang, [listen_tcp("127.0.0.1", 0)]) as server,
        RegistryClient(server.addresses[0], plain_http=True) as client,
    ):
        with ThreadPoolExecutor(1) as pool:
            pulling = pool.submit(pull, client)
            assert begun.wait(60)
            client.abort()
            with pytest.raises(Unreachable):
                pulling.result(60)
        released.set()


def test_a_pause_can_be_broken_off(fake: FakeRegistry) -> None:
    told = threading.Event()
    fake.answer = lambda asked: Answer(429, {"Retry-After": "100"})
    client = RegistryClient(fake.host, plain_http=True, notify=lambda message: told.set())
    with client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.manifest, "a/b", "1")
        assert told.wait(60)
        client.abort()
        with pytest.raises(Unreachable, match="broken off"):
            waiting.result(60)


def test_a_pull_of_an_image_that_is_cancelled_does_not_wait_for_the_registry(
    fake: FakeRegistry, tmp_path: Path
) -> None:
    fake.answer = lambda asked: Answer(429, {"Retry-After": "100"})
    cancel = Cancel()
    with Store.open(str(tmp_path / "store")) as store:
        told: list[Event] = []
        warned = threading.Event()

        def listen(event: Event) -> None:
            told.append(event)
            warned.set()

        transport = RegistryTransport(emit=listen)
        images = Images(store, transport)
        with ThreadPoolExecutor(1) as pool:
            pulling = pool.submit(images.pull, f"{fake.host}/a/b:1", cancel=cancel)
            assert warned.wait(60)
            cancel.cancel("interrupted")
            with pytest.raises(Cancelled, match="interrupted"):
                pulling.result(60)
        transport.close()
    assert [type(event) for event in told] == [Warned]


# ── pushing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Uploads:
    """The upload half of a registry, with the mishaps a test asks for."""

    def __init__(
        self, fake: FakeRegistry, location: str = "/v2/a/b/blobs/uploads/{id}?_state=a%2Bb%3D&n={n}"
    ) -> None:
        self.fake = fake
        self.location = location
        self.received = b""
        self.session = 0
        self.blobs: list[bytes] = []
        self.headers: dict[str, str] = {}
        self.refuse: list[Answer] = []  # given instead of the next PATCHes' answers
        self.lock = threading.Lock()
        fake.answer = self

    def where(self) -> dict[str, str]:
        location = self.location.format(id=self.session, n=len(self.received), host=self.fake.host)
        return {"Location": location, "Range": f"0-{max(len(self.received) - 1, 0)}", **self.headers}

    def __call__(self, asked: Asked) -> Answer:
        # What a cut connection brought counts as received.
        self.received += b"".join(self.fake.received_before_cut)
        self.fake.received_before_cut.clear()
        if asked.method == "HEAD":
            found = any(digest_of(blob) in asked.path for blob in self.blobs)
            return Answer(200 if found else 404)
        if asked.method == "POST":
            self.session += 1
            self.received = b""
            return Answer(202, self.where())
        assert "_state=a%2Bb%3D" in asked.path, "the query of Location was not kept"
        if f"/uploads/{self.session}?" not in asked.path:
            return Answer(404)
        if asked.method == "GET":
            return Answer(204, self.where())
        if asked.method == "PATCH":
            return self.patch(asked)
        self.received += asked.body
        self.blobs.append(self.received)
        return Answer(201)

    def patch(self, asked: Asked) -> Answer:
        if self.refuse:
            return self.refuse.pop(0)
        start = int(asked.headers["Content-Range"].partition("-")[0])
        if start != len(self.received):
            return Answer(416, self.where())
        self.received += asked.body
        return Answer(202, self.where())


@pytest.mark.parametrize(
    "location",
    [
        "/v2/a/b/blobs/uploads/{id}?_state=a%2Bb%3D&n={n}",
        "http://{host}/v2/a/b/blobs/uploads/{id}?_state=a%2Bb%3D&n={n}",
        "{id}?_state=a%2Bb%3D&n={n}",
    ],
    ids=["path", "absolute", "relative"],
)
@pytest.mark.parametrize("chunk", [None, 2_000_000])
def test_a_location_is_followed_with_its_query(
    fake: FakeRegistry, client: RegistryClient, location: str, chunk: int | None
) -> None:
    uploads = Uploads(fake, location)
    if location.startswith("{id}"):
        uploads.location = "/v2/a/b/blobs/uploads/" + location
    assert client.push_blob("a/b", BLOB, opener(DATA), chunk=chunk) is Pushed.UPLOADED
    assert uploads.blobs == [DATA]
    assert fake.asked[-1].method == "PUT"
    assert fake.asked[-1].path.endswith(f"&digest={BLOB.digest}")


def test_the_registry_may_want_larger_chunks(fake: FakeRegistry, client: RegistryClient) -> None:
    uploads = Uploads(fake)
    uploads.headers = {"OCI-Chunk-Min-Length": "3000000"}
    client.push_blob("a/b", BLOB, opener(DATA), chunk=1000)
    sizes = [len(asked.body) for asked in fake.asked if asked.method == "PATCH"]
    assert sizes == [3_000_000, 2_020_000]


def test_an_upload_cut_in_the_middle_goes_on_where_the_registry_is(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    uploads = Uploads(fake)
    cuts = [Cut(1_000_000), Cut(1_500_000)]
    fake.cut = lambda method, path: cuts.pop(0) if method == "PATCH" and cuts else None
    assert client.push_blob("a/b", BLOB, opener(DATA)) is Pushed.UPLOADED
    assert uploads.blobs == [DATA]
    patches = [asked for asked in fake.asked if asked.method == "PATCH"]
    assert [patch.headers["Content-Range"].partition("-")[0] for patch in patches] == ["2500000"]


def test_a_registry_that_kept_more_or_less_than_we_think_sets_us_right(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    uploads = Uploads(fake)

    def lose_some(asked: Asked) -> Answer:
        answer = uploads(asked)
        if asked.method == "PATCH" and len(uploads.received) == 3_000_000:
            uploads.received = uploads.received[:2_500_000]  # and the answer already promised more
        return answer

    fake.answer = lose_some
    assert client.push_blob("a/b", BLOB, opener(DATA), chunk=1_000_000) is Pushed.UPLOADED
    assert uploads.blobs == [DATA]


def test_a_forgotten_session_is_begun_anew(fake: FakeRegistry, client: RegistryClient) -> None:
    uploads = Uploads(fake)

    def forget(asked: Asked) -> Answer:
        if asked.method == "PATCH" and len(uploads.received) == 2_000_000 and uploads.session == 1:
            uploads.session = 7
            return Answer(404)
        return uploads(asked)

    fake.answer = forget
    assert client.push_blob("a/b", BLOB, opener(DATA), chunk=1_000_000) is Pushed.UPLOADED
    assert uploads.blobs == [DATA]


def test_a_blob_that_arrived_without_an_answer_is_not_sent_again(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    uploads = Uploads(fake)
    small = b"small blob"
    cuts = [Cut(len(small))]
    fake.cut = lambda method, path: cuts.pop(0) if method == "PUT" and cuts else None

    def landed(asked: Asked) -> Answer:
        if asked.method == "HEAD" and not cuts:
            return Answer(200)
        return uploads(asked)

    fake.answer = landed
    descriptor = Descriptor(media_types.OCI_LAYER, digest_of(small), len(small))
    assert client.push_blob("a/b", descriptor, opener(small)) is Pushed.UPLOADED
    assert [asked.method for asked in fake.asked] == ["HEAD", "POST", "HEAD"]


def test_an_upload_that_does_not_advance_ends_with_the_reason(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    uploads = Uploads(fake)
    uploads.refuse = [Answer(503) for _ in range(20)]
    with pytest.raises(Unreachable, match="cannot push blob sha256:"):
        client.push_blob("a/b", BLOB, opener(DATA))


def test_a_refusal_is_not_argued_with(fake: FakeRegistry, client: RegistryClient) -> None:
    uploads = Uploads(fake)
    body = json.dumps({"errors": [{"code": "SIZE_INVALID", "message": "quota exceeded"}]}).encode()
    uploads.refuse = [Answer(413, {}, body)]
    with pytest.raises(Rejected, match="quota exceeded"):
        client.push_blob("a/b", BLOB, opener(DATA))
    assert len([asked for asked in fake.asked if asked.method == "PATCH"]) == 1


def test_content_that_is_shorter_than_announced_is_our_own_fault(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    Uploads(fake)
    with pytest.raises(Invalid, match="it ended after 1000 of"):
        client.push_blob("a/b", BLOB, opener(DATA[:1000]))


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "no upload location"),
        ({"Location": "//host:port/"}, "is no URL"),
        ({"Location": "file:///etc"}, "sends us to"),
    ],
)
def test_a_registry_without_a_usable_location_is_reported(
    fake: FakeRegistry, client: RegistryClient, headers: dict[str, str], reason: str
) -> None:
    fake.answer = lambda asked: Answer(404) if asked.method == "HEAD" else Answer(202, headers)
    with pytest.raises(Invalid, match=reason):
        client.push_blob("a/b", BLOB, opener(DATA))
