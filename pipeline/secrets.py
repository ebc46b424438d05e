"""Where secrets come from, and how they reach a container: as files in memory, or in a variable. Never in a log, key or row.

A secret is fetched when the first node asks for it, once per run, and at that moment its value is made known to the
masker. `handed_out` puts the files for one container below /dev/shm and removes them when the container is done.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pipeline.conditions import Facts
from pipeline.config.container import SecretSpec, SecretUse
from pipeline.mask import Secrets
from runtime.containers.spec import Mount
from runtime.errors import Denied, InvalidInput, StepFailed

SIZE_LIMIT = 1 << 20
DIRECTORY = "/run/secrets"
_PREFIX = "pipe-secrets-"


class SecretStore:
    """The secrets of one run. Safe to use from many threads."""

    def __init__(
        self,
        specs: tuple[SecretSpec, ...],
        root: str,
        environment: Mapping[str, str],
        masker: Secrets,
        facts: Facts | None = None,
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._root, self._environment, self.masker, self._facts = root, environment, masker, facts
        self._values: dict[SecretSpec, bytes] = {}
        self._lock = threading.Lock()

    def value(self, use: SecretUse) -> bytes:
        """The secret; its value is masked from here on."""
        spec = use.source or self._specs[use.name]
        with self._lock:
            if spec not in self._values:
                value = self._fetch(spec)
                self.masker.add(value)
                self._values[spec] = value
            return self._values[spec]

    def _fetch(self, spec: SecretSpec) -> bytes:
        if self._facts is not None:
            verdict = spec.when.decide(self._facts)
            if not verdict.holds:
                raise Denied(f"secret `{spec.name}` is not for this run: {verdict.reason}", spec.span)
        if spec.env:
            value = self._environment.get(spec.env)
            found = None if value is None else value.encode("utf-8", "surrogateescape")
            missing = f"the variable {spec.env} of secret `{spec.name}` is not set"
        elif spec.file:
            found = self._read(os.path.join(self._root, os.path.expanduser(spec.file)), spec)
            missing = f"the file {spec.file} of secret `{spec.name}` is missing"
        else:
            return self._run(spec)
        if found is None and spec.required:
            raise InvalidInput(missing, spec.span, hint="`required: false` makes it empty instead")
        return found or b""

    def _read(self, path: str, spec: SecretSpec) -> bytes | None:
        try:
            with open(path, "rb") as file:
                data = file.read(SIZE_LIMIT + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidInput(
                f"cannot read the file of secret `{spec.name}`: {error.strerror}", spec.span
            ) from error
        if len(data) > SIZE_LIMIT:
            raise InvalidInput(f"secret `{spec.name}` is larger than {SIZE_LIMIT >> 10} KiB", spec.span)
        return data

    def _run(self, spec: SecretSpec) -> bytes:
        import subprocess

        try:
            done = subprocess.run(
                spec.command,
                cwd=self._root,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                check=False,
            )
        except FileNotFoundError as error:
            raise InvalidInput(
                f"no program {spec.command[0]!r} for secret `{spec.name}`", spec.span
            ) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StepFailed(
                f"the command of secret `{spec.name}` did not succeed: {type(error).__name__}", spec.span
            ) from error
        if done.returncode:
            # Its output may hold the secret: it is not shown.
            raise StepFailed(f"the command of secret `{spec.name}` exited with {done.returncode}", spec.span)
        return done.stdout.rstrip(b"\r\n")[:SIZE_LIMIT]

    @contextmanager
    def handed_out(
        self, uses: tuple[SecretUse, ...]
    ) -> Iterator[tuple[tuple[Mount, ...], tuple[tuple[str, str], ...]]]:
        """Mounts and variables for one container."""
        variables = [(use.env, self.value(use).decode("utf-8", "surrogateescape")) for use in uses if use.env]
        files = [use for use in uses if not use.env]
        if not files:
            yield (), tuple(variables)
            return
        with memory_directory() as directory:
            yield (
                tuple(self._mount(use, directory, number) for number, use in enumerate(files)),
                tuple(variables),
            )

    def _mount(self, use: SecretUse, directory: str, number: int) -> Mount:
        path = os.path.join(directory, str(number))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self.value(use))
        os.chmod(path, use.mode)
        target = use.target or use.name
        return Mount(type="bind", source=path, target=os.path.join(DIRECTORY, target), readonly=True)


@contextmanager
def memory_directory() -> Iterator[str]:
    """A directory of mode 0700 in memory where the host has one (shm_overview(7)), removed afterwards.

    The container's user reaches a file by its mount, not through the directory.
    """
    import tempfile

    from runtime.temporary import temporary_directory

    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
    with temporary_directory(_PREFIX, parent) as path:
        yield path
