"""The serving process: one per store, detached and in the foreground, found again, ended, killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from registry_client.client import RegistryClient
from registry_client.oci import media_types
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import digest_of
from runtime.errors import Conflict, HostFault, InvalidInput
from runtime.http.server import listen_tcp
from runtime.images.images import Images
from runtime.registry import process
from runtime.registry.access import Access
from runtime.registry.service import ServiceOptions, parse_address
from runtime.store import Store
from runtime.store.owners import own_token
from tests.support.certificates import make_certificates
from tests.support.registry_images import opener, small_image

ANY_PORT = ServiceOptions(address="127.0.0.1:0")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "store")
    Store.open(path).close()
    yield path
    process.stop(path)


def pipe(root: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.cli.main", "--root", root, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload,no-any-return]


def test_a_detached_registry_serves_until_it_is_stopped(root: str) -> None:
    state = process.start_detached(root, ANY_PORT)
    assert process.status(root) == state
    assert httpx.get(f"{state.url}/v2/", timeout=60).status_code == 200
    assert os.getsid(state.pid) == state.pid  # it outlives our terminal
    assert process.stop(root) == state
    assert process.status(root) is None
    assert process.stop(root) is None
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{state.url}/v2/", timeout=60)


def test_what_was_pushed_to_it_is_in_the_store_at_once(root: str) -> None:
    state = process.start_detached(root, ANY_PORT)
    image = small_image()
    with RegistryClient(state.address) as client:
        for descriptor, data in image.blobs:
            client.push_blob("shop/app", descriptor, opener(data))
        client.put_manifest("shop/app", "1", image.manifest.raw, image.manifest.media_type)
    with Store.open(root) as store:
        assert Images(store).get("shop/app:1").manifest_digest == image.manifest.digest


def test_there_is_one_per_store_and_the_second_is_told_where(root: str) -> None:
    state = process.start_detached(root, ANY_PORT)
    with pytest.raises(Conflict, match=state.address):
        process.start_detached(root, ANY_PORT)
    with Store.open(root) as store, pytest.raises(Conflict, match=state.address):
        process.serve(store, Images(store), ANY_PORT, lambda state: None)


def test_it_comes_back_on_the_port_it_had(root: str) -> None:
    def comes_back() -> bool:
        first = process.start_detached(root, ANY_PORT)
        process.stop(root)
        second = process.start_detached(root, ANY_PORT)
        process.stop(root)
        return second.address == first.address

    # A free port is anybody's for a moment: three times somebody else is quicker never.
    assert comes_back() or comes_back() or comes_back()


def test_a_port_somebody_took_meanwhile_is_left_to_him(root: str) -> None:
    first = process.start_detached(root, ANY_PORT)
    process.stop(root)
    with ExitStack() as stack:
        with suppress(Conflict):  # it may be somebody else's already
            stack.enter_context(listen_tcp(*parse_address(first.address)))
        assert process.start_detached(root, ANY_PORT).address != first.address


def test_a_port_in_use_is_the_reason_it_does_not_start(root: str) -> None:
    with listen_tcp("127.0.0.1", 0) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(HostFault, match=f"{address} is in use"):
            process.start_detached(root, ServiceOptions(address=address))
    assert process.status(root) is None


def test_a_killed_one_leaves_nothing_in_the_way(root: str) -> None:
    state = process.start_detached(root, ANY_PORT)
    with RegistryClient(state.address) as client:
        data = b"x" * 100_000
        client.push_blob("a/b", Descriptor(media_types.OCI_LAYER, digest_of(data), len(data)), opener(data))
    location = httpx.post(f"{state.url}/v2/a/b/blobs/uploads/", timeout=60).headers["location"]
    assert httpx.patch(f"{state.url}{location}", content=b"half of ", timeout=60).status_code == 202
    watch = os.pidfd_open(state.pid)
    try:
        os.kill(state.pid, signal.SIGKILL)
        os.waitid(os.P_PIDFD, watch, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        pass  # the thread that waits for it was quicker
    finally:
        os.close(watch)
    assert process.status(root) is None
    again = process.start_detached(root, ANY_PORT)
    assert httpx.head(f"{again.url}/v2/a/b/blobs/{digest_of(data)}", timeout=60).status_code == 200
    # The half upload was no blob, and can still be finished.
    whole = digest_of(b"half of it")
    assert httpx.head(f"{again.url}/v2/a/b/blobs/{whole}", timeout=60).status_code == 404
    done = httpx.put(f"{again.url}{location}", params={"digest": whole}, content=b"it", timeout=60)
    assert done.status_code == 201


def test_it_speaks_tls_and_asks_for_passwords(root: str, tmp_path: Path) -> None:
    import bcrypt

    made = make_certificates(tmp_path / "tls")
    passwords = tmp_path / "htpasswd"
    passwords.write_bytes(b"ci:" + bcrypt.hashpw(b"pw", bcrypt.gensalt(4)) + b"\n")
    options = ServiceOptions(
        address="127.0.0.1:0",
        access=Access(str(passwords)),
        certificate=str(made.certificate),
        key=str(made.key),
    )
    state = process.start_detached(root, options)
    assert state.url.startswith("https://")
    for auth, status in ((None, 401), (("ci", "pw"), 200)):
        import ssl

        trust = ssl.create_default_context(cafile=str(made.authority))
        assert httpx.get(f"{state.url}/v2/", auth=auth, verify=trust, timeout=60).status_code == status


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (ServiceOptions(address="127.0.0.1:0", certificate="/absent.crt"), "/absent.crt"),
        (ServiceOptions(address="127.0.0.1:0", access=Access("/absent")), "password file /absent"),
        (ServiceOptions(address="127.0.0.1:http"), "invalid address"),
    ],
)
def test_wrong_options_are_the_reason_it_does_not_start(
    root: str, options: ServiceOptions, reason: str
) -> None:
    with pytest.raises(HostFault, match=reason):
        process.start_detached(root, options)


def test_a_password_file_without_bcrypt_is_refused_by_line(root: str, tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text("\n# old\nci:{SHA}xxxx\n")
    options = ServiceOptions(address="127.0.0.1:0", access=Access(str(tmp_path / "htpasswd")))
    with Store.open(root) as store, pytest.raises(InvalidInput, match=r"htpasswd:3: the entry of 'ci'"):
        process.serve(store, Images(store), options, lambda state: None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:5050", ("127.0.0.1", 5050)),
        ("5050", ("127.0.0.1", 5050)),
        (":5050", ("0.0.0.0", 5050)),
        ("[::1]:0", ("::1", 0)),
    ],
)
def test_addresses_are_read_as_people_write_them(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


def test_a_pid_of_another_namespace_is_nobody_we_may_end(root: str) -> None:
    boot, namespace, pid, start = own_token().split(".")
    state = {
        "owner": f"{boot}.{int(namespace) + 1}.{pid}.{start}",
        "pid": os.getpid(),
        "address": "x:1",
        "tls": False,
    }
    os.makedirs(f"{root}/registry")
    with open(f"{root}/registry/state.json", "w") as file:
        json.dump(state, file)
    try:
        with pytest.raises(Conflict, match="another pid namespace"):
            process.stop(root)
    finally:
        os.unlink(f"{root}/registry/state.json")


# ── the command line ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_line_starts_shows_and_stops_it(root: str) -> None:
    started = pipe(root, "registry", "serve", "--detach", "--address", "127.0.0.1:0")
    assert started.returncode == 0, started.stderr
    state = process.status(root)
    assert state is not None
    assert started.stdout == f"serving at {state.url} (pid {state.pid})\n"
    assert json.loads(pipe(root, "registry", "status", "--json").stdout)["address"] == state.address
    again = pipe(root, "registry", "serve", "--detach")
    assert again.returncode == 1
    assert state.address in again.stderr
    stopped = pipe(root, "registry", "stop")
    assert (stopped.returncode, stopped.stdout) == (0, f"stopped {state.url}\n")
    assert pipe(root, "registry", "status").returncode == 1


def test_in_the_foreground_it_serves_until_interrupted(root: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pipeline.cli.main",
        "--root",
        root,
        "registry",
        "serve",
        "--address",
        "127.0.0.1:0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            line = running.stdout.readline()
            state = process.status(root)
            assert state is not None and state.url in line
            assert httpx.get(f"{state.url}/v2/", timeout=60).status_code == 200
            running.send_signal(signal.SIGINT)
            assert running.wait(60) == 0
        finally:
            running.kill()
