"""A case: one text file that holds a Dockerfile, its context and how it is built.

The form is that of Go's txtar, with modes: a head of `key: value` lines, then sections that begin with a line `-- NAME [MODE] --`.

    # what is shown by it
    base: busybox                      the image its FROM lines are built on (default), or debian
    args: --target app --build-arg X=1 more flags of the build
    buildah: no, why                   not for buildah at all; likewise `docker:`
    -- Dockerfile --
    FROM base:1
    -- src/run.sh 755 --
    #!/bin/sh

A name that ends in `/` is an empty directory, `NAME -> TARGET` a symbolic link. The time of everything in a context is `LONG_AGO`.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

LONG_AGO = 1_000_000_000
SECTION = re.compile(r"^-- (?P<name>.+?)(?: (?P<mode>[0-7]{3,4}))? --$")


@dataclass(frozen=True)
class Case:
    name: str
    settings: dict[str, str]
    files: tuple[tuple[str, int, str], ...]

    @property
    def base(self) -> str:
        return self.settings.get("base", "busybox")

    def arguments(self, context: Path, ca: str = "") -> list[str]:
        """The flags, with the place of the context, and of a file with certificates, put in."""
        text = self.settings.get("args", "")
        return [word.replace("{context}", str(context)).replace("{ca}", ca) for word in shlex.split(text)]

    def suits(self, builder: str) -> bool:
        """Whether this builder knows what the case uses; the file says why not."""
        return not self.settings.get(builder, "").startswith("no")

    def write(self, directory: Path) -> Path:
        """Make the context below `directory`, which is new."""
        directory.mkdir(parents=True)
        for name, mode, text in self.files:
            place = directory / name.split(" -> ")[0]
            place.parent.mkdir(parents=True, exist_ok=True)
            if " -> " in name:
                place.symlink_to(name.split(" -> ")[1])
            elif name.endswith("/"):
                place.mkdir(exist_ok=True)
                place.chmod(mode | 0o111)
            else:
                place.write_text(text)
                place.chmod(mode)
        age(directory)
        return directory


def age(directory: Path) -> None:
    """Give everything below the time `LONG_AGO`, and directories a mode that does not depend on the umask."""
    for parent, directories, files in os.walk(directory, topdown=False):
        for name in (*files, *directories):
            place = Path(parent, name)
            if place.is_dir() and not place.is_symlink():
                place.chmod(place.stat().st_mode | 0o755)
            os.utime(place, (LONG_AGO, LONG_AGO), follow_symlinks=False)
    os.utime(directory, (LONG_AGO, LONG_AGO))


def parse_case(name: str, text: str) -> Case:
    settings: dict[str, str] = {}
    files: list[tuple[str, int, list[str]]] = []
    for line in text.splitlines():
        found = SECTION.match(line)
        if found:
            files.append((found["name"], int(found["mode"] or "644", 8), []))
        elif files:
            files[-1][2].append(line)
        elif line.strip() and not line.startswith("#"):
            key, _, value = line.partition(":")
            settings[key.strip()] = (
                f"{settings[key.strip()]} {value.strip()}" if key.strip() in settings else value.strip()
            )
    if "generate" in settings:
        files += [("Dockerfile", 0o644, generated(settings["generate"]).splitlines()), ("a", 0o644, ["a"])]
    whole = tuple((name, mode, "".join(f"{line}\n" for line in lines)) for name, mode, lines in files)
    return Case(name, settings, whole)


def load_cases(directory: Path) -> list[Case]:
    return [parse_case(path.stem, path.read_text()) for path in sorted(directory.glob("*.case"))]


def generated(kind: str) -> str:
    """Dockerfiles that would be tedious to read: fifty stages, two hundred instructions."""
    if kind == "stages":
        stages = ["FROM stand.in/base:1 AS s0\nRUN mkdir /s && echo 0 > /s/0\n"]
        for number in range(1, 50):
            before = f"s{number - 1}"
            if number % 2:
                stages.append(f"FROM {before} AS s{number}\nRUN echo {number} > /s/{number}\n")
            else:
                stages.append(
                    f"FROM stand.in/base:1 AS s{number}\nCOPY --from={before} /s /s\nENV N{number}={number}\n"
                )
        return "".join(stages)
    kinds = (
        "ENV V{0}={0} LAST=$V{1}", "LABEL l{0}=$LAST", "RUN echo {0} > /f{0}", "COPY a /c/{0}", "WORKDIR /w/{0}",
        "ARG A{0}=a$V{1}", "EXPOSE {0}", "USER {0}", "USER root", "VOLUME /v{0}",
    )  # fmt: skip
    lines = (kinds[number % len(kinds)].format(number + 1, number + 1 - number % 10) for number in range(200))
    return "FROM stand.in/base:1\n" + "".join(f"{line}\n" for line in lines)
