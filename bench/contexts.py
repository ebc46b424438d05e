"""The build contexts that are measured: made once, always the same bytes.

They need no network and no registry: every tool builds the base image itself, from one static busybox.
"""

from __future__ import annotations

import random
import shutil
import string
from collections.abc import Callable
from pathlib import Path

BASE = "localhost/bench/base:1"
FILES = 20_000
_PER_FOLDER = 100
_PIECE = 256 << 10  # small: what this process ever held counts as its children's peak (getrusage(2))
_WRITE_5000 = (
    "mkdir -p /out /tmp && head -c 4096 /dev/urandom > /tmp/b && for d in $(seq 50); do mkdir /out/$d;"
    ' for f in $(seq 100); do echo "$d $f" > /out/$d/$f; done; done'
)
Maker = Callable[[Path], None]


def make_context(directory: Path, maker: Maker) -> Path:
    """The context that `maker` writes to `directory`; one that is there is kept."""
    if not (directory / "Dockerfile").exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        maker(directory)
    return directory


def base(busybox: Path) -> Maker:
    def write(directory: Path) -> None:
        shutil.copy(busybox, directory / "busybox")
        (directory / "Dockerfile").write_text(
            'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\nCMD ["sh"]\n'
        )

    return write


def steps(count: int) -> Maker:
    """`RUN true N`, `count` times."""

    def write(directory: Path) -> None:
        _dockerfile(directory, "".join(f"RUN true {number}\n" for number in range(1, count + 1)))

    return write


def mixed(directory: Path) -> None:
    """Ten steps of several kinds."""
    (directory / "src").mkdir()
    for number in range(1, 201):
        (directory / "src" / f"f{number}").write_bytes(b"x" * 4096)
    _dockerfile(
        directory,
        """\
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
""",
    )


def tree(count: int) -> Maker:
    """A COPY of `count` files of 5 KB on average, half text-like and half random, 100 to a folder.

    Sizes are log-normal as in source trees; 20,000 files are the bytes that the peers' own baselines were measured with.
    """

    def write(directory: Path) -> None:
        source = random.Random(7)
        letters = string.ascii_lowercase
        words = ["".join(source.choice(letters) for _ in range(source.randint(2, 10))) for _ in range(4000)]
        for number in range(count):
            folder = directory / "tree" / f"d{number // _PER_FOLDER:03}"
            if number % _PER_FOLDER == 0:
                folder.mkdir(parents=True)
            size = max(16, min(int(source.lognormvariate(7.9, 1.05)), 200_000))
            if number % 2:
                data = source.randbytes(size)
            else:
                data = " ".join(source.choices(words, k=size // 6 + 1)).encode()[:size]
            (folder / f"f{number % _PER_FOLDER:03}").write_bytes(data)
        _dockerfile(directory, "COPY tree /srv/tree\n")

    return write


def one_file(size: int) -> Maker:
    """A COPY of one file of random bytes."""

    def write(directory: Path) -> None:
        source = random.Random(7)
        with open(directory / "big.bin", "wb") as file:
            for start in range(0, size, _PIECE):
                file.write(source.randbytes(min(_PIECE, size - start)))
        _dockerfile(directory, "COPY big.bin /srv/big.bin\n")

    return write


def many_written(directory: Path) -> None:
    """One RUN that writes 5,000 files."""
    _dockerfile(directory, f"RUN {_WRITE_5000}\n")


def change_one(directory: Path, mark: str) -> None:
    """Give one file of a `tree` other bytes than it ever had."""
    (directory / "tree/d000/f000").write_text(f"{mark}\n")


def _dockerfile(directory: Path, text: str) -> None:
    (directory / "Dockerfile").write_text(f"FROM {BASE}\n{text}")
