"""Logins as docker keeps them: `config.json` and credential helpers (FEATURES C-15).

Order of look-up: `credHelpers` of the host, then `credsStore`, then `auths`. Writing keeps every key that is not
ours, replaces the file atomically and leaves it readable by its owner only. The path is given; nothing here reads
the environment.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from registry_client.endpoint import DOCKER_HUB_API
from registry_client.errors import CredentialError
from registry_client.reference import DOCKER_HUB
from registry_client.values import field, frozen

# Docker Hub is filed under the address its first API had, and everybody still does it.
DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_HUB_NAMES = (DOCKER_HUB, DOCKER_HUB_API, "index.docker.io")
_NOT_FOUND = "credentials not found in native keychain"
_TOKEN_USER = "<token>"  # a helper's word for "the secret is an identity token"
_HELPER_TIMEOUT = 60


@frozen
class Credential:
    """User and password, or a token instead of them. Secrets are kept out of `repr`."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)  # a refresh token for the token server
    registry_token: str = field(default="", repr=False)  # sent to the registry as it is


class Credentials(Protocol):
    def get(self, host: str) -> Credential | None: ...


class NoCredentials:
    """Everybody is anonymous."""

    def get(self, host: str) -> Credential | None:
        return None


class FixedCredentials:
    """Logins from memory: `{"registry.example.com": Credential(…)}`."""

    def __init__(self, by_host: dict[str, Credential]) -> None:
        self._by_host = by_host

    def get(self, host: str) -> Credential | None:
        return self._by_host.get(host)


class GivenLogins:
    """Logins in the form of `auths` in docker's config.json, as API clients send them. Not shown in `repr`."""

    def __init__(self, auths: dict[str, Any]) -> None:
        self._auths = auths

    def get(self, host: str) -> Credential | None:
        return _from_auths(self._auths, host)


class DockerConfig:
    """The logins of one docker config directory's `config.json`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, host: str) -> Credential | None:
        """The login for `host`, None for anonymous access."""
        record = self._load()
        for helper in self._helpers(record, host):
            found = _helper_get(helper, _server_key(host))
            if found is not None:
                return found
        return _from_auths(record.get("auths"), host)

    def store(self, host: str, credential: Credential) -> str:
        """Keep a login; returns where: a helper's name or the file's path."""
        record = self._load()
        for helper in self._helpers(record, host):
            user = _TOKEN_USER if credential.identity_token else credential.username
            secret = credential.identity_token or credential.password
            request = {"ServerURL": _server_key(host), "Username": user, "Secret": secret}
            _run_helper(helper, "store", json.dumps(request))
            self._mark(host)
            return f"docker-credential-{helper}"
        with self._rewriting() as record:
            _auths(record)[_server_key(host)] = _auth_entry(credential)
        return self.path

    def erase(self, host: str) -> bool:
        """Forget a login; False when there was none."""
        record = self._load()
        known = False
        for helper in self._helpers(record, host):
            known = _helper_get(helper, _server_key(host)) is not None
            if known:
                _run_helper(helper, "erase", _server_key(host))
        if not any(_same_host(key, host) for key in record.get("auths") or ()):
            return known
        with self._rewriting() as record:
            auths = _auths(record)
            for key in [key for key in auths if _same_host(key, host)]:
                del auths[key]
        return True

    def hosts(self) -> tuple[str, ...]:
        """The registries `config.json` names, helpers' included."""
        record = self._load()
        named = [*(record.get("auths") or ()), *(record.get("credHelpers") or ())]
        return tuple(sorted({_host_of(key) for key in named}))

    def _helpers(self, record: dict[str, Any], host: str) -> Iterator[str]:
        by_host = record.get("credHelpers") or {}
        named = next((name for key, name in by_host.items() if _same_host(key, host)), "")
        for name in (named, record.get("credsStore") or ""):
            if name:
                yield str(name)
                return

    def _mark(self, host: str) -> None:
        # Docker writes an empty entry beside the helper's, so that `docker logout` without a name finds it.
        with self._rewriting() as record:
            _auths(record)[_server_key(host)] = {}

    def _load(self) -> dict[str, Any]:
        try:
            with open(self.path, "rb") as file:
                record = json.load(file)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise CredentialError(f"cannot read {self.path}: {error}") from error
        if not isinstance(record, dict):
            raise CredentialError(f"cannot read {self.path}: it is not a JSON object")
        return record

    @contextmanager
    def _rewriting(self) -> Iterator[dict[str, Any]]:
        target = os.path.realpath(self.path)  # people link this file into their dotfiles
        directory = os.path.dirname(target)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            record = self._load()
            yield record
            _replace(target, json.dumps(record, indent="\t", ensure_ascii=False).encode() + b"\n")
        finally:
            os.close(lock)


def _replace(path: str, data: bytes) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _auths(record: dict[str, Any]) -> dict[str, Any]:
    auths = record.setdefault("auths", {})
    if not isinstance(auths, dict):
        raise CredentialError("`auths` in the docker config file is not an object")
    return auths


def _auth_entry(credential: Credential) -> dict[str, str]:
    entry = {}
    if credential.username:
        pair = f"{credential.username}:{credential.password}"
        entry["auth"] = base64.b64encode(pair.encode()).decode()
    if credential.identity_token:
        entry["identitytoken"] = credential.identity_token
    if credential.registry_token:
        entry["registrytoken"] = credential.registry_token
    return entry


def _from_auths(auths: Any, host: str) -> Credential | None:
    if not isinstance(auths, dict):
        return None
    entry = auths.get(_server_key(host))
    if entry is None:
        entry = next((value for key, value in auths.items() if _same_host(key, host)), None)
    if not isinstance(entry, dict) or not entry:
        return None
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        username, password = _decode_pair(str(entry["auth"]), host)
    credential = Credential(
        username, password, str(entry.get("identitytoken") or ""), str(entry.get("registrytoken") or "")
    )
    return None if credential == Credential() else credential


def _decode_pair(text: str, host: str) -> tuple[str, str]:
    try:
        user, _, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise CredentialError(f"the login for {host} in the docker config file is not base64") from error
    return user, password.strip("\0")


def _server_key(host: str) -> str:
    return DOCKER_HUB_KEY if host in _HUB_NAMES else host


def _host_of(key: str) -> str:
    host = key.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return DOCKER_HUB if host in _HUB_NAMES else host


def _same_host(key: str, host: str) -> bool:
    return _host_of(key) == _host_of(host)


def _helper_get(helper: str, server: str) -> Credential | None:
    answer = _run_helper(helper, "get", server)
    if answer is None:
        return None
    try:
        record = json.loads(answer)
        user, secret = str(record["Username"]), str(record["Secret"])
    except (ValueError, LookupError, TypeError) as error:
        raise CredentialError(f"docker-credential-{helper} gave no valid answer for {server}") from error
    if user == _TOKEN_USER:
        return Credential(identity_token=secret)
    return Credential(user, secret) if user or secret else None


def _run_helper(helper: str, verb: str, request: str) -> str | None:
    """The helper's answer; None when it knows no such login."""
    import subprocess

    program = f"docker-credential-{helper}"
    if "/" in helper:
        raise CredentialError(f"invalid credential helper {helper!r}: want a name, not a path")
    try:
        done = subprocess.run(
            [program, verb], input=request, capture_output=True, text=True, timeout=_HELPER_TIMEOUT
        )
    except FileNotFoundError as error:
        raise CredentialError(
            f"credential helper {program} is not installed",
            hint="install it, or remove it from `credHelpers` and `credsStore` of the docker config file",
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CredentialError(f"credential helper {program} failed: {error}") from error
    if done.returncode == 0:
        return done.stdout
    # Helpers report on stdout; this sentence is part of their protocol.
    if _NOT_FOUND in done.stdout or _NOT_FOUND in done.stderr:
        return None
    reason = (done.stdout.strip() or done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
    raise CredentialError(f"credential helper {program} failed: {reason}")
