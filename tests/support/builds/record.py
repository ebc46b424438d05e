"""Write down what docker builds from the cases: `PIPE_DOCKER='docker' python -m tests.support.builds.record [CASE...]`.

For a machine with docker and BuildKit; the tests then compare with the records. `PIPE_DOCKER` is the command line that runs docker, and
`PIPE_DOCKER_WORK` a directory that it sees under the same path (a temporary one without it).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from tests.support import REPOSITORY
from tests.support.builds.bases import make_busybox_base
from tests.support.builds.builders import docker_from_environment
from tests.support.builds.case import Case, load_cases
from tests.support.builds.compare import page

CASES = REPOSITORY / "tests" / "data" / "builds"


def record_of(case: Case) -> Path:
    """The file with what docker built from a case."""
    return CASES / f"{case.name}.built"


def main(names: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="record-", dir=os.environ.get("PIPE_DOCKER_WORK")) as directory:
        work, failed = Path(directory), 0
        docker = docker_from_environment(work)
        if docker is None:
            print("set PIPE_DOCKER to the command that runs docker")
            return 2
        docker.load(make_busybox_base(work / "store", work))
        for case in load_cases(CASES):
            if (names and case.name not in names) or not case.suits("docker") or case.base != "busybox":
                continue
            context = case.write(work / "cases" / case.name)
            outcome = docker.build(context, case.arguments(context))
            print(f"{'ok    ' if outcome.image else 'FAILED'} {case.name}", flush=True)
            if outcome.image is None:
                print(outcome.log)
                failed = 1
            else:
                text = json.dumps(page(outcome.image), indent=0, ensure_ascii=True, sort_keys=True)
                record_of(case).write_text(text + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
