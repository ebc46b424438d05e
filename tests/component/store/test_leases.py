"""A lease counts while its process lives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "store")) as opened:
        yield opened


def test_a_thing_is_held_for_the_length_of_the_block_however_often(store: Store) -> None:
    with store.leases.hold("snapshot", ["a", "b"]):
        with store.leases.hold("snapshot", ["a"]):
            assert store.leases.held("snapshot") == {"a", "b"}
        assert store.leases.held("snapshot") == {"a", "b"}
        assert store.leases.held("blob") == set()
    assert store.leases.held("snapshot") == set()


def test_what_is_kept_goes_when_the_store_is_closed(store: Store) -> None:
    with Store.open(store.root) as other:
        other.leases.keep("blob", "x")
        with other.leases.hold("blob", ["x"]):
            pass
        assert store.leases.held("blob") == {"x"}
        store.leases.release()
        assert store.leases.held("blob") == {"x"}
    assert store.leases.held("blob") == set()


def test_a_request_of_a_server_keeps_things_only_while_it_lasts(store: Store) -> None:
    store.leases.keep("blob", "for good")
    with store.leases.passing():
        store.leases.keep("blob", "for now")
        assert store.leases.held("blob") == {"for good", "for now"}
    assert store.leases.held("blob") == {"for good"}


HOLD = """
import os, signal, sys
from runtime.store import Store
store = Store.open(sys.argv[1])
store.leases.keep("snapshot", "of the other process")
print("held", flush=True)
sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_holds_nothing_any_more(store: Store) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"held\n"
        assert store.leases.held("snapshot") == {"of the other process"}
        process.stdin.close()
        assert process.wait() == -9
    assert store.leases.held("snapshot") == set()
    store.leases.sweep()
    assert store.db.read("SELECT * FROM leases") == []
