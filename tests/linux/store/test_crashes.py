"""Kill -9 at every step of what changes a store: nothing half is taken for whole, nothing is left, and it works again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY

pytestmark = pytest.mark.linux

SCENARIOS = ["Build", "Pull", "Load", "Collect"]


def survive(tmp_path: Path, scenario: str, first: int, step: int) -> int:
    arguments = [str(tmp_path / "store"), f"tests.linux.store.scenarios:{scenario}", str(first), str(step)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.support.crashing", *arguments],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("survived ")
    return int(done.stdout.split()[1])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_sample_of_kills_is_survived(tmp_path: Path, scenario: str) -> None:
    assert survive(tmp_path, scenario, 5, 17) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_kill_at_every_single_step_is_survived(tmp_path: Path, scenario: str) -> None:
    assert survive(tmp_path, scenario, 1, 1) >= 50


PULL = """
import os, signal, sys
from runtime.images import Images
from runtime.store import Store
from tests.linux.store.scenarios import NAME, Pull

scenario = Pull()
registry = scenario._registry

def kill(digest, offset):
    if offset >= 20_000:  # the second chunk of the large layer
        os.kill(os.getpid(), signal.SIGKILL)

registry.on_chunk = kill if sys.argv[2] == "kill" else lambda digest, offset: None
with Store.open(sys.argv[1]) as store:
    Images(store, registry).pull(NAME)
print(max(registry.offsets))
"""


def test_a_pull_that_was_killed_goes_on_in_the_next_process(tmp_path: Path) -> None:
    def pull(mode: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-c", PULL, str(tmp_path / "store"), mode]
        return subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True)

    assert pull("kill").returncode == -9
    second = pull("go on")
    assert (second.returncode, second.stderr) == (0, "")
    assert int(second.stdout) == 20_000
