"""A token names one process of one boot."""

from __future__ import annotations

import os
import subprocess
import sys

from runtime.store.owners import is_alive, own_token


def test_this_process_is_alive_and_others_get_other_tokens() -> None:
    assert own_token() == own_token()
    assert is_alive(own_token())
    assert is_alive(own_token() + ".more")


def test_a_process_that_ended_is_dead() -> None:
    code = "from runtime.store.owners import own_token; print(own_token())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not is_alive(ended.stdout.strip())


def test_a_pid_that_was_given_anew_does_not_count() -> None:
    boot, namespace, pid, start = own_token().split(".")
    assert int(pid) == os.getpid()
    assert not is_alive(f"{boot}.{namespace}.{pid}.{int(start) + 1}")


def test_nothing_of_an_earlier_boot_is_alive() -> None:
    _, rest = own_token().split(".", 1)
    assert not is_alive(f"0123456789ab.{rest}")


def test_of_another_pid_namespace_nothing_is_known_so_it_counts_as_alive() -> None:
    boot, _, _, start = own_token().split(".")
    assert is_alive(f"{boot}.1.999999999.{start}")


def test_what_is_no_token_is_dead() -> None:
    assert not is_alive("")
    assert not is_alive("a.b.c.d")
