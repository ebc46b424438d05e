"""The client against a transport that is a table of answers: no sockets, no waiting."""

from __future__ import annotations

import errno
import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from email.utils import formatdate
from time import time

import httpx
import pytest

from registry_client.client import RegistryClient
from registry_client.credentials import Credential, FixedCredentials
from registry_client.endpoint import parse_mirror
from registry_client.errors import Denied, Invalid, NotFound, RateLimited, Rejected, Unauthorized, Unreachable
from registry_client.oci import media_types
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest, digest_of
from registry_client.oci.manifest import make_index, make_manifest
from registry_client.patience import Patience

HOST = "registry.example.com"
CONFIG = Descriptor(media_types.OCI_CONFIG, digest_of(b"{}"), 2)
MANIFEST = make_manifest(CONFIG, ())
MANIFEST_HEADERS = {"Content-Type": media_types.OCI_MANIFEST, "Docker-Content-Digest": MANIFEST.digest}

Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class Script(httpx.BaseTransport):
    """Gives the prepared answers, one after another, and keeps the requests."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        assert self.answers, f"nobody expected {request.method} {request.url}"
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            if isinstance(answer, httpx.RequestError):
                answer.request = request
            raise answer
        return unread(answer if isinstance(answer, httpx.Response) else answer(request))

    @property
    def urls(self) -> list[str]:
        return [str(request.url) for request in self.requests]


def unread(response: httpx.Response) -> httpx.Response:
    """As it would come from a socket: httpx reads what is given as `content` at once."""
    if not response.is_stream_consumed:
        return response
    stream = httpx.ByteStream(response.content)
    return httpx.Response(response.status_code, headers=response.headers, stream=stream)


class Naps:
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


class Broken(httpx.SyncByteStream):
    """Some bytes, then the connection is gone."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __iter__(self) -> Iterator[bytes]:
        yield self.data
        raise httpx.ReadError("connection reset")


def client(script: Script, naps: Naps | None = None, **options: object) -> RegistryClient:
    patience = Patience(5, sleep=naps or Naps())
    return RegistryClient(HOST, transport=script, patience=patience, **options)  # type: ignore[arg-type]


def ok(content: bytes = MANIFEST.raw, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(200, headers=MANIFEST_HEADERS if headers is None else headers, content=content)


def refused(status: int, code: str = "X", **headers: str) -> httpx.Response:
    body = {"errors": [{"code": code, "message": f"said {code}"}]}
    return httpx.Response(status, headers={k.replace("_", "-"): v for k, v in headers.items()}, json=body)


# ── manifests ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_manifest_is_asked_for_in_all_forms_we_know() -> None:
    script = Script(ok())
    assert client(script).manifest("shop/app", "1") == (
        MANIFEST.raw,
        media_types.OCI_MANIFEST,
        MANIFEST.digest,
    )
    assert script.urls == [f"https://{HOST}/v2/shop/app/manifests/1"]
    accepted = script.requests[0].headers["accept"].split(", ")
    assert set(accepted) == media_types.INDEXES | media_types.MANIFESTS


def test_a_manifest_that_is_not_what_was_asked_for_is_refused() -> None:
    with pytest.raises(Invalid, match="its content is sha256:"):
        client(Script(ok())).manifest("shop/app", digest_of(b"other"))
    wrong = {**MANIFEST_HEADERS, "Docker-Content-Digest": digest_of(b"other")}
    with pytest.raises(Invalid, match="its content is sha256:"):
        client(Script(ok(headers=wrong))).manifest("shop/app", "1")


def test_a_sha512_digest_is_verified_as_such() -> None:
    digest = Digest("sha512:" + hashlib.sha512(MANIFEST.raw).hexdigest())
    assert client(Script(ok())).manifest("shop/app", digest)[2] == digest
    with pytest.raises(Invalid, match="its content is sha512:"):
        client(Script(ok(b"{}"))).manifest("shop/app", digest)


def test_a_manifest_sent_with_a_useless_content_type_says_itself_what_it_is() -> None:
    assert (
        client(Script(ok(headers={"Content-Type": "text/plain"}))).manifest("a/b", "1")[1]
        == MANIFEST.media_type
    )


def test_a_manifest_may_not_be_larger_than_four_mebibytes() -> None:
    with pytest.raises(Invalid, match="more than 4194304 bytes"):
        client(Script(ok(b" " * (4 << 20) + b" "))).manifest("shop/app", "1")


def test_looking_up_a_manifest_does_not_fetch_it() -> None:
    script = Script(ok(b"", {**MANIFEST_HEADERS, "Content-Length": "123"}))
    found = client(script).head_manifest("shop/app", "1")
    assert (found.digest, found.size, found.media_type) == (MANIFEST.digest, 123, media_types.OCI_MANIFEST)
    assert script.requests[0].method == "HEAD"


def test_a_registry_that_does_not_tell_the_digest_is_asked_for_the_manifest() -> None:
    script = Script(ok(b"", {"Content-Type": media_types.OCI_MANIFEST}), ok())
    assert client(script).head_manifest("shop/app", "1").digest == MANIFEST.digest
    assert [request.method for request in script.requests] == ["HEAD", "GET"]


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "code", "category"),
    [
        (401, "UNAUTHORIZED", Unauthorized),
        (403, "DENIED", Denied),
        (404, "MANIFEST_UNKNOWN", NotFound),
        (400, "NAME_INVALID", Rejected),
        (413, "SIZE_INVALID", Rejected),
    ],
)
def test_an_answer_becomes_the_error_it_stands_for(status: int, code: str, category: type[Exception]) -> None:
    script = Script(refused(status, code))
    with pytest.raises(category, match=f"cannot pull shop/app:1 from {HOST}: said {code}") as caught:
        client(script).manifest("shop/app", "1")
    assert (caught.value.status, caught.value.code) == (status, code)  # type: ignore[attr-defined]
    assert len(script.requests) == 1


def test_an_error_without_the_envelope_is_told_by_its_status() -> None:
    with pytest.raises(Rejected, match="status 418"):
        client(Script(httpx.Response(418, content=b"<html>"))).manifest("a/b", "1")


@pytest.mark.parametrize(
    "trouble", [429, 500, 502, 503, 504, httpx.ConnectError("no"), httpx.ReadError("no")]
)
def test_what_may_pass_is_tried_again_with_growing_pauses(trouble: int | Exception) -> None:
    def answer() -> Answer:
        return refused(trouble) if isinstance(trouble, int) else trouble

    naps = Naps()
    script = Script(answer(), answer(), answer(), ok())
    assert client(script, naps).manifest("a/b", "1")[2] == MANIFEST.digest
    assert len(naps.seconds) == 3
    assert naps.seconds[0] < naps.seconds[2]


def test_after_five_attempts_it_is_enough() -> None:
    naps = Naps()
    script = Script(*[refused(503) for _ in range(5)])
    with pytest.raises(Unreachable):
        client(script, naps).manifest("a/b", "1")
    assert len(naps.seconds) == 4


def test_an_answer_that_comes_after_the_abort_is_not_read() -> None:
    def late(request: httpx.Request) -> httpx.Response:
        registry.abort()
        return ok()

    script = Script(late)
    with client(script) as registry, pytest.raises(Unreachable, match="broken off"):
        registry.manifest("a/b", "1")
    assert len(script.requests) == 1


def nobody_there(cause: OSError) -> httpx.ConnectError:
    error = httpx.ConnectError(str(cause))
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "cause",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    ],
    ids=["refused", "no route", "no network", "no name server"],
)
def test_where_nobody_may_be_one_more_try_is_made_at_once(cause: OSError) -> None:
    naps = Naps()
    with pytest.raises(Unreachable, match="no answer from"):
        client(Script(nobody_there(cause), nobody_there(cause)), naps).manifest("a/b", "1")
    assert naps.seconds == [pytest.approx(0.2)]


def test_a_host_without_a_name_is_not_asked_for_twice() -> None:
    naps = Naps()
    unknown = nobody_there(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    with pytest.raises(Unreachable):
        client(Script(unknown), naps).manifest("a/b", "1")
    assert naps.seconds == []


def test_a_registry_that_answered_before_is_given_time_to_come_back() -> None:
    naps = Naps()
    gone = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    script = Script(ok(), *[nobody_there(gone) for _ in range(4)], ok())
    with client(script, naps) as registry:
        registry.manifest("a/b", "1")
        registry.manifest("a/b", "1")
    assert len(naps.seconds) == 4


def test_the_registry_says_how_long_to_wait() -> None:
    naps = Naps()
    later = formatdate(time() + 30, usegmt=True)
    script = Script(refused(429, Retry_After="7"), refused(503, Retry_After=later), ok())
    client(script, naps).manifest("a/b", "1")
    assert naps.seconds[0] == 7
    assert 20 < naps.seconds[1] <= 30


def test_a_wait_of_hours_is_reported_and_not_waited_for() -> None:
    headers = {"Retry_After": "7200", "RateLimit_Limit": "100;w=21600"}
    with pytest.raises(RateLimited) as caught:
        client(Script(refused(429, "TOOMANYREQUESTS", **headers)), Naps()).manifest("a/b", "1")
    assert caught.value.retry_after == 7200
    assert "100 in 6 h" in caught.value.hint
    assert f"pipe login {HOST}" in caught.value.hint


def test_a_pause_and_a_warning_are_told_and_a_warning_once() -> None:
    told: list[str] = []
    warned = {**MANIFEST_HEADERS, "Warning": '299 - "this tag goes away"'}
    script = Script(refused(503), ok(headers=warned), ok(headers=warned))
    talking = client(script, notify=told.append)
    talking.manifest("a/b", "1")
    talking.manifest("a/b", "1")
    assert len(told) == 2
    assert "trying again" in told[0]
    assert told[1] == f"{HOST} says: this tag goes away"


# ── authorization and redirects ─────────────────────────────────────────────────────────────────────────────────────


def challenge() -> httpx.Response:
    return refused(401, www_authenticate='Bearer realm="https://auth.example.com/token",service="reg"')


def token(request: httpx.Request) -> httpx.Response:
    assert request.url.host == "auth.example.com"
    return httpx.Response(200, json={"token": "t0k"})


def test_a_challenged_request_is_repeated_with_a_token() -> None:
    script = Script(challenge(), token, ok(), ok())
    talking = client(script)
    talking.manifest("shop/app", "1")
    talking.manifest("shop/app", "2")
    assert script.urls[1] == "https://auth.example.com/token?service=reg&scope=repository%3Ashop%2Fapp%3Apull"
    assert [r.headers.get("authorization") for r in script.requests] == [
        None,
        None,
        "Bearer t0k",
        "Bearer t0k",
    ]


def test_a_narrower_grant_is_the_registrys_decision() -> None:
    with pytest.raises(Unauthorized):
        client(Script(challenge(), token, challenge())).manifest("shop/app", "1")


def test_authorization_does_not_follow_to_another_host() -> None:
    blob = b"content"
    login = FixedCredentials({HOST: Credential("u", "p")})
    away = httpx.Response(307, headers={"Location": "https://storage.example.net/x?sig=a%2Fb"})
    script = Script(refused(401, www_authenticate='Basic realm="r"'), away, httpx.Response(200, content=blob))
    with client(script, credentials=login).blob("a/b", digest_of(blob)) as chunks:
        assert b"".join(chunks) == blob
    assert "authorization" in script.requests[1].headers
    assert "authorization" not in script.requests[2].headers
    assert script.urls[2] == "https://storage.example.net/x?sig=a%2Fb"


@pytest.mark.parametrize("target", [f"http://{HOST}/elsewhere", f"https://{HOST}:8443/elsewhere"])
def test_another_scheme_or_port_is_another_host(target: str) -> None:
    login = FixedCredentials({HOST: Credential(registry_token="t")})
    script = Script(challenge(), httpx.Response(302, headers={"Location": target}), ok())
    client(script, credentials=login).manifest("a/b", "1")
    assert "authorization" not in script.requests[2].headers


def test_authorization_follows_a_redirect_on_the_same_host() -> None:
    login = FixedCredentials({HOST: Credential(registry_token="t")})
    script = Script(challenge(), httpx.Response(301, headers={"Location": "/v2/c/d/manifests/1"}), ok())
    client(script, credentials=login).manifest("a/b", "1")
    assert script.requests[2].headers["authorization"] == "Bearer t"


def test_a_challenge_from_another_host_is_not_answered() -> None:
    login = FixedCredentials({HOST: Credential("u", "p")})
    away = httpx.Response(307, headers={"Location": "https://evil.example.net/"})
    script = Script(away, refused(401, www_authenticate='Basic realm="r"'))
    with pytest.raises(Unauthorized):
        client(script, credentials=login).manifest("a/b", "1")
    assert len(script.requests) == 2


def test_redirects_come_to_an_end() -> None:
    around = [httpx.Response(302, headers={"Location": f"/v2/{n}"}) for n in range(10)]
    with pytest.raises(Invalid, match="redirects more than 10 times"):
        client(Script(*around)).manifest("a/b", "1")


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://x/"])
def test_a_redirect_to_something_else_is_refused(target: str) -> None:
    with pytest.raises(Invalid, match="sends us to"):
        client(Script(httpx.Response(302, headers={"Location": target}))).manifest("a/b", "1")


# ── blobs ───────────────────────────────────────────────────────────────────────────────────────────────────────────

BLOB = bytes(range(256)) * 40
DIGEST = digest_of(BLOB)


def part(start: int, data: bytes | None = None) -> httpx.Response:
    headers = {"Content-Range": f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"}
    return httpx.Response(206, headers=headers, content=BLOB[start:] if data is None else data)


def pull(script: Script, **options: object) -> bytes:
    with client(script).blob("a/b", DIGEST, **options) as chunks:  # type: ignore[arg-type]
        return b"".join(chunks)


def test_a_broken_transfer_goes_on_where_it_broke() -> None:
    script = Script(httpx.Response(200, stream=Broken(BLOB[:1000])), part(1000))
    assert pull(script, size=len(BLOB)) == BLOB
    assert script.requests[1].headers["range"] == "bytes=1000-"


def test_it_may_break_as_often_as_it_makes_progress() -> None:
    breaks = [
        httpx.Response(
            206,
            headers={"Content-Range": f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"},
            stream=Broken(BLOB[start : start + 500]),
        )
        for start in range(500, 10_000, 500)
    ]
    script = Script(httpx.Response(200, stream=Broken(BLOB[:500])), *breaks, part(10_000))
    assert pull(script) == BLOB


def test_without_progress_it_ends_after_five_attempts() -> None:
    script = Script(*[httpx.Response(200, stream=Broken(b"")) for _ in range(6)])
    with pytest.raises(Unreachable, match="broke off"):
        pull(script)


def test_a_registry_that_ignores_ranges_sends_again_what_is_skipped() -> None:
    script = Script(httpx.Response(200, stream=Broken(BLOB[:1000])), httpx.Response(200, content=BLOB))
    assert pull(script, size=len(BLOB)) == BLOB


def test_a_transfer_can_begin_at_an_offset() -> None:
    script = Script(part(4000))
    assert pull(script, offset=4000, size=len(BLOB)) == BLOB[4000:]
    assert script.requests[0].headers["range"] == "bytes=4000-"


def test_nothing_is_asked_for_when_all_is_there() -> None:
    assert pull(Script(), offset=len(BLOB), size=len(BLOB)) == b""
    end = httpx.Response(416, headers={"Content-Range": f"bytes */{len(BLOB)}"})
    assert pull(Script(end), offset=len(BLOB)) == b""


def test_an_offset_behind_the_end_is_an_error() -> None:
    with pytest.raises(Invalid, match="fewer than 99999 bytes"):
        pull(Script(httpx.Response(416, headers={"Content-Range": "bytes */5"})), offset=99999)


def test_a_part_that_was_not_asked_for_is_refused() -> None:
    with pytest.raises(Invalid, match="asked for byte 4000"):
        pull(Script(part(0)), offset=4000)


def test_wrong_content_is_refused_at_its_end() -> None:
    with pytest.raises(Invalid, match="its content is sha256:") as caught:
        pull(Script(httpx.Response(200, content=b"x" * len(BLOB))))
    assert caught.value.hint


def test_more_or_less_than_announced_is_refused() -> None:
    with pytest.raises(Invalid, match="more than the 5 bytes"):
        pull(Script(httpx.Response(200, content=BLOB)), size=5)
    with pytest.raises(Invalid, match="should have 99999"):
        pull(Script(httpx.Response(200, content=BLOB)), size=99_999)


def test_a_missing_blob_shows_before_anything_is_read() -> None:
    script = Script(refused(404, "BLOB_UNKNOWN"))
    with pytest.raises(NotFound):
        client(script).blob("a/b", DIGEST).__enter__()


def test_a_foreign_layer_is_fetched_from_its_own_address_without_credentials() -> None:
    login = FixedCredentials({HOST: Credential(registry_token="t")})
    script = Script(challenge(), refused(404), httpx.Response(200, content=BLOB))
    with client(script, credentials=login).blob(
        "a/b", DIGEST, urls=["http://plain.example/x", "https://foreign.example/x"]
    ) as chunks:
        assert b"".join(chunks) == BLOB
    assert script.urls[2] == "https://foreign.example/x"
    assert "authorization" not in script.requests[2].headers


# ── lists, referrers, mirrors ───────────────────────────────────────────────────────────────────────────────────────


def test_pages_of_tags_are_followed_on_the_same_host_only() -> None:
    script = Script(
        httpx.Response(
            200, json={"tags": ["a", "b"]}, headers={"Link": '</v2/x/y/tags/list?last=b>; rel="next"'}
        ),
        httpx.Response(200, json={"tags": ["c"]}, headers={"Link": '<https://evil.example/>; rel="next"'}),
    )
    assert client(script).tags("x/y") == ("a", "b", "c")


def test_a_repository_without_tags_has_none() -> None:
    assert client(Script(httpx.Response(200, json={"name": "x", "tags": None}))).tags("x/y") == ()


def test_referrers_come_from_the_api_filtered_also_when_the_registry_does_not() -> None:
    entries = tuple(
        Descriptor(media_types.OCI_MANIFEST, digest_of(kind.encode()), 1, artifact_type=kind)
        for kind in ("a/x", "b/y")
    )
    script = Script(httpx.Response(200, content=make_index(entries).raw))
    assert client(script).referrers("x/y", DIGEST, "b/y") == entries[1:]
    assert script.urls == [f"https://{HOST}/v2/x/y/referrers/{DIGEST}?artifactType=b%2Fy"]


def test_a_registry_without_the_api_keeps_referrers_under_a_tag() -> None:
    entry = Descriptor(media_types.OCI_MANIFEST, digest_of(b"sig"), 1, artifact_type="sig")
    script = Script(refused(404), httpx.Response(200, content=make_index((entry,)).raw))
    assert client(script).referrers("x/y", DIGEST) == (entry,)
    assert script.urls[1].endswith("/manifests/" + DIGEST.replace(":", "-"))
    assert client(Script(refused(404), refused(404))).referrers("x/y", DIGEST) == ()


def test_a_pushed_referrer_is_announced_where_the_registry_does_not_do_it() -> None:
    record = {**json.loads(MANIFEST.raw), "subject": {"mediaType": "m", "digest": DIGEST, "size": 1}}
    raw = json.dumps(record).encode()
    script = Script(httpx.Response(201), refused(404), httpx.Response(201))
    client(script).put_manifest("x/y", "sig", raw, media_types.OCI_MANIFEST)
    index = json.loads(script.requests[2].content)
    assert script.urls[2].endswith("/manifests/" + DIGEST.replace(":", "-"))
    assert [entry["digest"] for entry in index["manifests"]] == [digest_of(raw)]


def test_a_registry_that_knows_subjects_is_left_to_itself() -> None:
    record = {**json.loads(MANIFEST.raw), "subject": {"mediaType": "m", "digest": DIGEST, "size": 1}}
    script = Script(httpx.Response(201, headers={"OCI-Subject": DIGEST}))
    client(script).put_manifest("x/y", "sig", json.dumps(record).encode(), media_types.OCI_MANIFEST)
    assert len(script.requests) == 1


def test_mirrors_are_read_first_with_their_own_login_and_the_registry_last() -> None:
    login = FixedCredentials({HOST: Credential("u", "secret")})
    mirrors = [parse_mirror("https://one.example/cache"), parse_mirror("https://two.example")]
    basic = refused(401, www_authenticate='Basic realm="r"')
    script = Script(basic, httpx.ConnectError("down"), ok())
    client(script, credentials=login, mirrors=mirrors).manifest("a/b", "1")
    assert script.urls == [
        f"https://one.example/v2/cache/a/b/manifests/1?ns={HOST}",
        f"https://two.example/v2/a/b/manifests/1?ns={HOST}",
        f"https://{HOST}/v2/a/b/manifests/1",
    ]
    assert all("authorization" not in request.headers for request in script.requests)


def test_what_a_mirror_has_is_not_asked_for_again() -> None:
    script = Script(ok())
    client(script, mirrors=[parse_mirror("https://one.example")]).manifest("a/b", "1")
    assert len(script.requests) == 1


def test_writes_do_not_go_to_mirrors() -> None:
    script = Script(httpx.Response(201))
    talking = client(script, mirrors=[parse_mirror("https://one.example")])
    talking.put_manifest("a/b", "1", MANIFEST.raw, MANIFEST.media_type)
    assert script.urls == [f"https://{HOST}/v2/a/b/manifests/1"]
