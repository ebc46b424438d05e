"""`pipe login` and `pipe logout`, docker's config file and credential helpers."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry_client.credentials import Credential, DockerConfig
from registry_client.errors import CredentialError
from tests.support.registry import docker_registry

HELPER = """#!/bin/sh
# A credential helper that keeps its secrets in files: docker's helper protocol in ten lines.
dir="{directory}"
case "$1" in
store) python3 -c 'import json,sys; r=json.load(sys.stdin); open(sys.argv[1]+"/"+r["ServerURL"].replace("/","_"),"w").write(json.dumps(r))' "$dir";;
get) read -r server; f="$dir/$(printf %s "$server" | tr / _)"
     if [ -f "$f" ]; then cat "$f"; else echo "credentials not found in native keychain"; exit 1; fi;;
erase) read -r server; rm "$dir/$(printf %s "$server" | tr / _)";;
*) echo "unknown verb"; exit 1;;
esac
"""


def encoded(pair: str) -> str:
    return base64.b64encode(pair.encode()).decode()


def config(path: Path, record: object) -> DockerConfig:
    path.write_text(json.dumps(record))
    return DockerConfig(str(path))


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`docker-credential-files` on the PATH; its secrets are in the directory returned."""
    kept, programs = tmp_path / "kept", tmp_path / "programs"
    kept.mkdir()
    programs.mkdir()
    program = programs / "docker-credential-files"
    program.write_text(HELPER.replace("{directory}", str(kept)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return kept


# ── the file ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("registry.example.com", "registry.example.com"),
        ("registry.example.com:5000", "registry.example.com:5000"),
        ("https://registry.example.com/v1/", "registry.example.com"),
        ("http://registry.example.com", "registry.example.com"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
    ],
)
def test_a_login_is_found_under_all_its_spellings(tmp_path: Path, key: str, host: str) -> None:
    known = config(tmp_path / "c", {"auths": {key: {"auth": encoded("user:pass:word")}}})
    assert known.get(host) == Credential("user", "pass:word")
    assert known.get("other.example.com") is None


def test_tokens_are_read(tmp_path: Path) -> None:
    auths = {"a.example": {"auth": encoded("u:p"), "identitytoken": "i"}, "b.example": {"registrytoken": "r"}}
    known = config(tmp_path / "c", {"auths": auths})
    assert known.get("a.example") == Credential("u", "p", identity_token="i")
    assert known.get("b.example") == Credential(registry_token="r")


def test_no_file_and_empty_entries_are_no_login(tmp_path: Path) -> None:
    assert DockerConfig(str(tmp_path / "absent")).get("a.example") is None
    assert config(tmp_path / "c", {"auths": {"a.example": {}}}).get("a.example") is None
    assert config(tmp_path / "c", {"auths": None}).get("a.example") is None


@pytest.mark.parametrize("content", ["{", "[]", '{"auths": {"a.example": {"auth": "%%%"}}}'])
def test_a_damaged_file_is_reported_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "c").write_text(content)
    with pytest.raises(CredentialError, match=r"docker config file|cannot read"):
        DockerConfig(str(tmp_path / "c")).get("a.example")


def test_a_login_is_written_beside_all_other_keys_for_the_owner_only(tmp_path: Path) -> None:
    others = {
        "HttpHeaders": {"X": "1"},
        "detachKeys": "ctrl-x",
        "auths": {"b.example": {"auth": encoded("x:y")}},
    }
    known = config(tmp_path / "config.json", others)
    os.chmod(known.path, 0o644)
    known.store("a.example", Credential("user", "päss"))
    known.store("docker.io", Credential("hub", "pw"))
    record = json.loads(Path(known.path).read_text())
    assert record["auths"] == {
        "b.example": {"auth": encoded("x:y")},
        "a.example": {"auth": encoded("user:päss")},
        "https://index.docker.io/v1/": {"auth": encoded("hub:pw")},
    }
    assert {key: record[key] for key in ("HttpHeaders", "detachKeys")} == {
        "HttpHeaders": {"X": "1"},
        "detachKeys": "ctrl-x",
    }
    assert os.stat(known.path).st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["config.json"]
    assert known.hosts() == ("a.example", "b.example", "docker.io")
    assert known.erase("docker.io") and not known.erase("docker.io")
    assert known.get("a.example") == Credential("user", "päss")


def test_a_linked_config_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / "config.json").symlink_to("dotfiles/docker.json")
    DockerConfig(str(tmp_path / "config.json")).store("a.example", Credential("u", "p"))
    assert (tmp_path / "config.json").is_symlink()
    assert "a.example" in (tmp_path / "dotfiles" / "docker.json").read_text()


# ── helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_helper_keeps_the_secret_and_the_file_only_a_mark(tmp_path: Path, helper: Path) -> None:
    known = config(tmp_path / "c", {"credsStore": "files"})
    assert known.store("a.example", Credential("user", "secret")) == "docker-credential-files"
    assert "secret" not in (tmp_path / "c").read_text()
    assert known.get("a.example") == Credential("user", "secret")
    assert known.get("b.example") is None
    assert known.erase("a.example")
    assert os.listdir(helper) == []
    assert known.get("a.example") is None


def test_a_helper_of_the_host_comes_before_the_store_and_the_file(tmp_path: Path, helper: Path) -> None:
    record = {
        "credHelpers": {"a.example": "files"},
        "credsStore": "absent",
        "auths": {"a.example": {"auth": encoded("from:file")}},
    }
    known = config(tmp_path / "c", record)
    assert known.get("a.example") == Credential("from", "file")  # the helper knows nothing yet
    known.store("a.example", Credential("from", "helper"))
    assert known.get("a.example") == Credential("from", "helper")


def test_a_helper_may_hand_out_an_identity_token(tmp_path: Path, helper: Path) -> None:
    known = config(tmp_path / "c", {"credsStore": "files"})
    known.store("a.example", Credential(identity_token="idt"))
    assert known.get("a.example") == Credential(identity_token="idt")


def test_docker_hub_is_asked_for_by_its_old_address(tmp_path: Path, helper: Path) -> None:
    known = config(tmp_path / "c", {"credsStore": "files"})
    known.store("docker.io", Credential("hub", "pw"))
    assert os.listdir(helper) == ["https:__index.docker.io_v1_"]
    assert known.get("docker.io") == Credential("hub", "pw")


@pytest.mark.parametrize(
    ("name", "script", "reason"),
    [
        ("missing", "", "docker-credential-missing is not installed"),
        ("broken", "#!/bin/sh\necho locked; exit 1\n", "docker-credential-broken failed: locked"),
        ("silly", "#!/bin/sh\necho '{}'\n", "gave no valid answer"),
        ("../../bin/sh", "", "want a name, not a path"),
    ],
)
def test_a_helper_that_does_not_work_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str, reason: str
) -> None:
    if script:
        program = tmp_path / f"docker-credential-{name}"
        program.write_text(script)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(CredentialError, match=reason):
        config(tmp_path / "c", {"credsStore": name}).get("a.example")


# ── the commands ────────────────────────────────────────────────────────────────────────────────────────────────────


def pipe(tmp_path: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "DOCKER_CONFIG": str(tmp_path / "docker"),
        "PIPE_ROOT": str(tmp_path / "store"),
    }
    command = [sys.executable, "-m", "pipeline.cli.main", *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.peer
@pytest.mark.parametrize("auth", ["basic", "token"])
def test_login_checks_the_password_before_it_keeps_it(tmp_path: Path, auth: str) -> None:
    with docker_registry(tmp_path, auth=auth) as registry:
        wrong = pipe(
            tmp_path, "login", registry.host, "-u", registry.user, "--password-stdin", given="wrong\n"
        )
        assert wrong.returncode == 1
        assert "wrong" not in wrong.stdout + wrong.stderr
        assert not (tmp_path / "docker").exists()
        right = pipe(
            tmp_path,
            "login",
            registry.host,
            "-u",
            registry.user,
            "--password-stdin",
            given=registry.password + "\n",
        )
        assert right.returncode == 0, right.stderr
        kept = DockerConfig(str(tmp_path / "docker" / "config.json"))
        assert kept.get(registry.host) == Credential(registry.user, registry.password)
        out = pipe(tmp_path, "logout", registry.host)
        assert (out.returncode, out.stdout) == (0, f"Removed the login for {registry.host}\n")
        assert kept.get(registry.host) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("login", "bad host"),
        ("login", "x.example", "--password-stdin"),
        ("login", "nodots", "-u", "u", "-p", "p"),
    ],
)
def test_a_senseless_login_is_a_usage_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = pipe(tmp_path, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
