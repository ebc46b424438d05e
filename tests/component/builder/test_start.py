"""What a build that finds every step costs at its start: facts, no times (ARCHITECTURE.md, Where practice differs)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.builder import PROJECT, run_pipe, write_files

# Each takes milliseconds to import, and a build that only looks needs none.
HEAVY = (
    "click", "queue", "inspect", "dataclasses", "ctypes", "random", "subprocess", "tempfile", "shutil", "asyncio", "yaml", "rich",
    "httpx", "lark", "git", "runtime.networks", "runtime.sandbox", "builder.operations.exec", "builder.prune",
    "runtime.store.layers",
)  # fmt: skip

_PROGRAM = """
import sys
from pipeline.cli.main import run
code = run(sys.argv[1:])
print(*sys.modules, sep="\\n", file=sys.stderr)
sys.exit(code)
"""


def test_a_build_of_found_steps_imports_nothing_heavy(tmp_path: Path) -> None:
    text = 'FROM scratch\nENV A=1 B=2\nWORKDIR /app\nCOPY a /app/a\nLABEL c=d\nCMD ["/bin/true"]\n'
    context = write_files(tmp_path / "c", {"Dockerfile": text, "a": "1"})
    arguments = ("build", "-q", "-t", "x", str(context))
    first = run_pipe(tmp_path / "store", *arguments).stdout
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, "--root", str(tmp_path / "store"), *arguments],
        env={"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        timeout=240,
    )
    assert (done.returncode, done.stdout) == (0, first)
    loaded = set(done.stderr.decode().split())
    assert "builder.executor" in loaded, "the steps were looked for"
    assert [name for name in HEAVY if name in loaded] == []
