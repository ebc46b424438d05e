"""Where the doctor's facts come from: files, programs, libraries of one host, below a directory in tests."""

from __future__ import annotations

import os

from registry_client.values import frozen


@frozen(kw_only=True)
class Host:
    """`base` is put before every path that is read; `/` is the real host. `store` and `docker_config` are settings."""

    store: str
    docker_config: str
    ca_bundle: str = ""
    base: str = "/"
    user: int = 0
    path: str = ""  # where programs are looked for, "" is as usual

    @property
    def real(self) -> bool:
        return self.base == "/"

    def file(self, path: str) -> str:
        return os.path.join(self.base, path.lstrip("/"))

    def read(self, path: str) -> str:
        """A file's text, "" when there is none."""
        try:
            with open(self.file(path), encoding="utf-8", errors="replace") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return ""

    def exists(self, path: str) -> bool:
        return os.path.exists(self.file(path))

    def program(self, name: str) -> str:
        """Where a program is, "" when it is not installed; system directories are looked at in any case."""
        from shutil import which

        places = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")
        system = ":".join(self.file(place) for place in places)
        usual = which(name) if self.real and not self.path else None
        return usual or which(name, path=self.path or system) or ""

    def output(self, *command: str) -> str:
        """What a program prints first, "" when it fails."""
        import subprocess

        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return next(iter(done.stdout.splitlines()), "")

    def library(self, name: str) -> bool:
        """Whether a shared library can be loaded."""
        import ctypes

        if not self.real:
            return self.exists(f"/usr/lib/{name}")
        try:
            ctypes.CDLL(name)
        except OSError:
            return False
        return True
