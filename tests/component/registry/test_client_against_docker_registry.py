"""Our client and Debian's docker-registry: every verb, with every kind of login."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registry_client.client import RegistryClient
from registry_client.credentials import Credential, FixedCredentials
from registry_client.errors import NotFound, RegistryError, Rejected, Unauthorized, Unreachable
from registry_client.oci import media_types
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import digest_of
from registry_client.oci.manifest import make_manifest
from registry_client.uploads import Pushed
from tests.support.registry import ForeignRegistry, docker_registry
from tests.support.registry_images import opener, small_image
from tests.support.token_server import REFRESH_TOKEN

pytestmark = pytest.mark.peer

KINDS = {"plain": {}, "basic over tls": {"auth": "basic", "tls": True}, "token": {"auth": "token"}}


@pytest.fixture(params=KINDS)
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ForeignRegistry]:
    with docker_registry(tmp_path, **KINDS[request.param]) as running:
        yield running


def connect(registry: ForeignRegistry, **options: object) -> RegistryClient:
    if registry.user and "credentials" not in options:
        login = Credential(registry.user, registry.password)
        options["credentials"] = FixedCredentials({registry.host: login})
    ca = str(registry.certificates.authority) if registry.certificates else ""
    return RegistryClient(registry.host, ca=ca, **options)  # type: ignore[arg-type]


@pytest.fixture
def client(registry: ForeignRegistry) -> Iterator[RegistryClient]:
    with connect(registry) as connected:
        yield connected


def part(data: bytes) -> Descriptor:
    return Descriptor(media_types.OCI_LAYER, digest_of(data), len(data))


def test_an_image_goes_there_and_comes_back(client: RegistryClient) -> None:
    image = small_image()
    client.ping()
    for descriptor, data in image.blobs:
        assert client.push_blob("shop/app", descriptor, opener(data)) is Pushed.UPLOADED
    manifest = image.manifest
    assert client.put_manifest("shop/app", "1", manifest.raw, manifest.media_type) == manifest.digest
    assert client.manifest("shop/app", "1") == (manifest.raw, manifest.media_type, manifest.digest)
    assert client.manifest("shop/app", manifest.digest)[0] == manifest.raw
    assert client.head_manifest("shop/app", "1").digest == manifest.digest
    for descriptor, data in image.blobs:
        with client.blob("shop/app", descriptor.digest, size=descriptor.size) as chunks:
            assert b"".join(chunks) == data


@pytest.mark.parametrize("size", [0, 1, 1000, (1 << 20) + 1, 5 << 20])
@pytest.mark.parametrize("chunk", [None, 700_001])
def test_blobs_of_any_size_arrive_in_one_piece_and_in_chunks(
    tmp_path: Path, size: int, chunk: int | None
) -> None:
    data = os.urandom(size)
    sent: list[int] = []
    with docker_registry(tmp_path) as registry, connect(registry) as client:
        done = client.push_blob("a/b", part(data), opener(data), chunk=chunk, progress=sent.append)
        assert done is Pushed.UPLOADED
        with client.blob("a/b", digest_of(data), size=size) as chunks:
            assert b"".join(chunks) == data
    assert sent[-1] == size
    assert sent == sorted(sent)


def test_what_is_there_is_not_sent_again(client: RegistryClient) -> None:
    data = b"x" * 5000
    client.push_blob("a/one", part(data), opener(data))

    def nobody_opens_this(offset: int) -> io.BytesIO:
        raise AssertionError("the blob was to be left alone")

    assert client.push_blob("a/one", part(data), nobody_opens_this) is Pushed.EXISTS
    assert client.push_blob("a/two", part(data), nobody_opens_this, mount_from="a/one") is Pushed.MOUNTED


def test_a_mount_that_cannot_be_is_an_upload(client: RegistryClient) -> None:
    data = b"y" * 5000
    assert client.push_blob("a/b", part(data), opener(data), mount_from="a/absent") is Pushed.UPLOADED


def test_a_part_of_a_blob_can_be_read(client: RegistryClient) -> None:
    data = os.urandom(100_000)
    client.push_blob("a/b", part(data), opener(data))
    with client.blob("a/b", digest_of(data), offset=99_000, size=len(data)) as chunks:
        assert b"".join(chunks) == data[99_000:]


def test_tags_are_listed_and_manifests_deleted(client: RegistryClient) -> None:
    image = small_image()
    for descriptor, data in image.blobs:
        client.push_blob("shop/app", descriptor, opener(data))
    for tag in ("c", "a", "b"):
        client.put_manifest("shop/app", tag, image.manifest.raw, image.manifest.media_type)
    assert sorted(client.tags("shop/app")) == ["a", "b", "c"]
    assert client.catalog() == ("shop/app",)
    client.delete("shop/app", image.manifest.digest)
    with pytest.raises(NotFound) as caught:
        client.manifest("shop/app", "a")
    assert caught.value.code == "MANIFEST_UNKNOWN"
    client.delete_blob("shop/app", image.layer[0].digest)
    assert not client.has_blob("shop/app", image.layer[0].digest)


def test_what_is_not_there_is_not_found(client: RegistryClient) -> None:
    with pytest.raises(NotFound):
        client.tags("no/such")
    with pytest.raises(NotFound):
        client.head_manifest("no/such", "1")
    with pytest.raises(NotFound), client.blob("no/such", digest_of(b"x")):
        pass


def test_a_manifest_without_its_blobs_is_rejected(client: RegistryClient) -> None:
    manifest = make_manifest(part(b"nowhere"), ())
    with pytest.raises(Rejected) as caught:
        client.put_manifest("a/b", "1", manifest.raw, manifest.media_type)
    assert caught.value.code == "MANIFEST_BLOB_UNKNOWN"


def test_a_registry_of_before_has_its_referrers_kept_for_it(tmp_path: Path) -> None:
    image = small_image()
    with docker_registry(tmp_path) as registry, connect(registry) as client:
        for descriptor, data in image.blobs:
            client.push_blob("a/b", descriptor, opener(data))
        client.put_manifest("a/b", "1", image.manifest.raw, image.manifest.media_type)
        signatures = [_referrer(image.manifest.descriptor, kind) for kind in ("sig/one", "sig/two")]
        for raw in signatures:
            client.push_blob("a/b", Descriptor(media_types.OCI_EMPTY, digest_of(b"{}"), 2), opener(b"{}"))
            client.put_manifest("a/b", digest_of(raw), raw, media_types.OCI_MANIFEST)
        found = client.referrers("a/b", image.manifest.digest)
        assert [one.digest for one in found] == [digest_of(raw) for raw in signatures]
        assert [one.artifact_type for one in found] == ["sig/one", "sig/two"]
        assert client.referrers("a/b", image.manifest.digest, "sig/two") == found[1:]


def _referrer(subject: Descriptor, kind: str) -> bytes:
    empty = Descriptor(media_types.OCI_EMPTY, digest_of(b"{}"), 2).to_json()
    record = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": kind,
        "config": empty,
        "layers": [empty],
        "subject": subject.to_json(),
    }
    return json.dumps(record).encode()


def test_threads_share_a_client(client: RegistryClient) -> None:
    blobs = [os.urandom(200_000) for _ in range(12)]

    def there_and_back(data: bytes) -> bytes:
        client.push_blob("a/b", part(data), opener(data), chunk=60_000)
        with client.blob("a/b", digest_of(data)) as chunks:
            return b"".join(chunks)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(there_and_back, blobs)) == blobs


# ── logins ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["basic over tls", "token"])
@pytest.mark.parametrize("login", [None, Credential("ci", "wrong")])
def test_without_the_right_login_nothing_is_to_be_had(
    tmp_path: Path, kind: str, login: Credential | None
) -> None:
    with docker_registry(tmp_path, **KINDS[kind]) as registry:
        credentials = FixedCredentials({registry.host: login} if login else {})
        with connect(registry, credentials=credentials) as client, pytest.raises(Unauthorized) as caught:
            client.tags("shop/app")
        assert f"pipe login {registry.host}" in caught.value.hint
        assert "wrong" not in str(caught.value)


def test_a_token_covers_both_repositories_of_a_mount(tmp_path: Path) -> None:
    data = b"z" * 1000
    with docker_registry(tmp_path, auth="token") as registry, connect(registry) as client:
        client.push_blob("a/one", part(data), opener(data))
        assert client.push_blob("a/two", part(data), opener(data), mount_from="a/one") is Pushed.MOUNTED
        assert registry.tokens is not None
        scopes = [asked[1] for asked in registry.tokens.requests]
        assert ["repository:a/one:pull", "repository:a/two:pull,push"] in scopes
        assert len(scopes) == 3


def test_a_refresh_token_gets_tokens(tmp_path: Path) -> None:
    with docker_registry(tmp_path, auth="token") as registry:
        login = FixedCredentials({registry.host: Credential(identity_token=REFRESH_TOKEN)})
        with connect(registry, credentials=login) as client:
            client.push_blob("a/b", part(b"data"), opener(b"data"))
            assert registry.tokens is not None
            assert {asked[0] for asked in registry.tokens.requests} == {"POST"}


def test_anonymous_readers_are_given_a_token_too(tmp_path: Path) -> None:
    with docker_registry(tmp_path, auth="token", anonymous_actions=("pull",)) as registry:
        with connect(registry) as client:
            client.push_blob("a/b", part(b"data"), opener(b"data"))
        with connect(registry, credentials=FixedCredentials({})) as anonymous:
            with anonymous.blob("a/b", digest_of(b"data")) as chunks:
                assert b"".join(chunks) == b"data"
            with pytest.raises(Unauthorized):
                anonymous.push_blob("a/b", part(b"more"), opener(b"more"))


def test_a_token_that_ran_out_is_renewed(tmp_path: Path) -> None:
    with docker_registry(tmp_path, auth="token") as registry, connect(registry) as client:
        assert registry.tokens is not None
        registry.tokens.lifetime = -200  # beyond the minute of grace the registry gives: refused on arrival
        with pytest.raises(Unauthorized):
            client.has_blob("a/b", digest_of(b"x"))
        registry.tokens.lifetime = 300
        assert not client.has_blob("a/b", digest_of(b"x"))


# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_certificate_is_not_trusted_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    with docker_registry(tmp_path, tls=True) as registry, RegistryClient(registry.host) as client:
        with pytest.raises(Unreachable, match="certificate verify failed") as caught:
            client.ping()
        assert "insecure" in caught.value.hint


def test_an_insecure_host_is_spoken_to_whatever_it_speaks(tmp_path: Path) -> None:
    for tls in (True, False):
        with docker_registry(tmp_path, tls=tls) as registry:
            with RegistryClient(registry.host, insecure=True) as client:
                client.ping()


def test_a_client_that_insists_on_tls_does_not_fall_back(tmp_path: Path) -> None:
    with docker_registry(tmp_path) as registry:
        with (
            RegistryClient(registry.host, plain_http=False) as client,
            pytest.raises(RegistryError) as caught,
        ):
            client.ping()
        assert "plain http" in caught.value.hint


def test_a_proxy_is_not_asked_for_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with docker_registry(tmp_path) as registry, connect(registry) as client:
        client.ping()
