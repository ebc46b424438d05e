"""The build contexts that are measured: made once, always the same bytes.

They need no network and no registry: every tool builds the base image itself, from one static busybox.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

BASE = "localhost/bench/base:1"
FILES = 20_000
FOLDERS = 200


def make_contexts(directory: Path, busybox: Path) -> None:
    """Write `base`, `run10`, `mix10` and `tree20k` below `directory`; what is there is kept."""
    makers = {"base": _base, "run10": _run10, "mix10": _mix10, "tree20k": _tree20k}
    for name, make in makers.items():
        if not (directory / name / "Dockerfile").exists():
            shutil.rmtree(directory / name, ignore_errors=True)
            (directory / name).mkdir(parents=True)
            make(directory / name, busybox)


def _base(directory: Path, busybox: Path) -> None:
    shutil.copy(busybox, directory / "busybox")
    (directory / "Dockerfile").write_text(
        'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\nCMD ["sh"]\n'
    )


def _run10(directory: Path, busybox: Path) -> None:
    steps = "".join(f"RUN true {number}\n" for number in range(1, 11))
    (directory / "Dockerfile").write_text(f"FROM {BASE}\n{steps}")


def _mix10(directory: Path, busybox: Path) -> None:
    (directory / "src").mkdir()
    for number in range(1, 201):
        (directory / "src" / f"f{number}").write_bytes(b"x" * 4096)
    (directory / "Dockerfile").write_text(
        f"""FROM {BASE}
ENV A=1 B=2
WORKDIR /app
RUN mkdir -p /app/data
COPY src/f1 /app/f1
RUN echo one > /app/one
COPY src /app/src
RUN ls -R /app/src > /app/list
ENV C=3
RUN echo two > /app/two
CMD ["/bin/true"]
"""
    )


def _tree20k(directory: Path, busybox: Path) -> None:
    """20,000 files, about 100 MB, half text-like and half random, in 200 folders; sizes are log-normal as in source trees."""
    source = random.Random(7)
    words = [
        "".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randint(2, 10))) for _ in range(4000)
    ]
    per_folder = FILES // FOLDERS
    for folder in range(FOLDERS):
        path = directory / "tree" / f"d{folder:03}"
        path.mkdir(parents=True)
        for number in range(per_folder):
            size = max(16, min(int(source.lognormvariate(7.9, 1.05)), 200_000))
            if number % 2:
                data = source.randbytes(size)
            else:
                data = " ".join(source.choices(words, k=size // 6 + 1)).encode()[:size]
            (path / f"f{number:03}").write_bytes(data)
    (directory / "Dockerfile").write_text(f"FROM {BASE}\nCOPY tree /srv/tree\n")
