"""Fuzz one target after the other with atheris: `python -m tests.fuzz [--seconds N] [--keep DIRECTORY] [TARGET...]`.

Each target runs in a process of its own, because libFuzzer ends the one it runs in. A find is written to the directory, which also
keeps the corpus for the next time; it should become a test in tests/unit. Exit code 1 when there was one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

SLOW_INPUT = 10  # seconds for one input of at most LONGEST bytes: whatever takes that is no longer linear
LONGEST = 4096
MEMORY = 1024  # MiB


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="time for each target")
    parser.add_argument(
        "--keep", type=Path, default=Path(".fuzz"), help="where the corpus and finds are kept"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*")
    given = parser.parse_args()
    if given.one:
        return fuzz(given.one, given.keep, given.seconds)
    from tests.fuzz.targets import TARGETS

    failed = []
    for target in given.targets or TARGETS:
        command = [sys.executable, "-m", "tests.fuzz", "--one", target, "--keep", str(given.keep)]
        print(f"== {target}", flush=True)
        if subprocess.run([*command, "--seconds", str(given.seconds)]).returncode:
            failed.append(target)
    print(f"found something: {', '.join(failed)}" if failed else "nothing found")
    return 1 if failed else 0


def fuzz(target: str, keep: Path, seconds: int) -> int:
    """Run libFuzzer in this process; it does not come back."""
    import atheris

    with atheris.instrument_imports(include=["builder", "registry_client", "runtime", "pipeline"]):
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.seeds import seeds

    corpus = keep / target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(data)
    options = (
        f"-max_total_time={seconds}", f"-timeout={SLOW_INPUT}", f"-rss_limit_mb={MEMORY}", f"-max_len={LONGEST}",
        f"-artifact_prefix={keep}/{target}-", "-print_final_stats=1", "-verbosity=0",
    )  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], TARGETS[target])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
