"""`RUN --mount=type=ssh`, judged by OpenSSH's tools inside the step and outside of it (FEATURES A-61)."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.builder import build, build_text, log_of, run_pipe, write_files
from tests.support.openssh import agent_with, copy_programs, fingerprint, make_key, run

pytestmark = pytest.mark.linux
LIST = "FROM tools:1\nRUN --mount=type=ssh ssh-add -l; echo code $?\n"


@pytest.fixture(scope="module")
def context(base_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty context, beside an image `tools:1` with ssh-add and ssh-keygen."""
    directory = tmp_path_factory.mktemp("ssh")
    copy_programs(directory / "tools" / "root", "ssh-add", "ssh-keygen")
    text = "FROM base:1\nCOPY root/ /\nENV PATH=/usr/bin:/bin\n"
    write_files(directory / "tools", {"Dockerfile": text})
    run_pipe(base_store, "build", "-q", "-t", "tools:1", str(directory / "tools"))
    return write_files(directory / "context", {})


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path)


def output(root: Path, context: Path, dockerfile: str, *arguments: str, **settings: object) -> str:
    return log_of(root, context, "-f", "-", "--no-cache", *arguments, stdin=dockerfile.encode(), **settings)


def test_a_step_sees_the_keys_of_the_agent_it_is_given(root: Path, context: Path, key: Path) -> None:
    other = make_key(key.parent, "rsa")
    with agent_with(key) as one, agent_with(other) as two:
        text = output(
            root, context,
            "FROM tools:1\nRUN --mount=type=ssh echo at $SSH_AUTH_SOCK && ssh-add -l\n"
            "RUN --mount=type=ssh,id=two,target=/x/agent echo at $SSH_AUTH_SOCK && ssh-add -l\n",
            "--ssh", "default", "--ssh", f"two={two}", env={"SSH_AUTH_SOCK": one},
        )  # fmt: skip
    assert "at /run/buildkit/ssh_agent.0" in text
    assert "at /x/agent" in text
    assert text.index(fingerprint(key)) < text.index(fingerprint(other))


@pytest.mark.parametrize("form", ["", "PEM", "PKCS8"])
def test_key_files_are_served_by_an_agent_of_the_build(
    root: Path, context: Path, key: Path, form: str
) -> None:
    files = [key, make_key(key.parent, "rsa", form=form), make_key(key.parent, "ecdsa", form=form)]
    files[0].chmod(0o644)  # a mode ssh-add would refuse
    text = output(root, context, LIST, "--ssh", f"default={','.join(map(str, files))}")
    assert all(fingerprint(file) in text for file in files)


def test_what_a_step_signs_verifies(root: Path, context: Path, key: Path) -> None:
    keys = [key, make_key(key.parent, "rsa"), make_key(key.parent, "ecdsa")]
    names = " ".join(file.name for file in keys)
    work = write_files(
        key.parent / "work", {f"{file.name}.pub": Path(f"{file}.pub").read_text() for file in keys}
    )
    build_text(
        root, work,
        "FROM tools:1 AS sign\nCOPY . /work\n"
        f"RUN --mount=type=ssh cd /work && echo text > text && for key in {names}; do"
        " ssh-keygen -Y sign -f $key.pub -n test < text > $key.sig || exit 1; done\n"
        "FROM scratch\nCOPY --from=sign /work /\n",
        "--ssh", f"default={','.join(map(str, keys))}", "-o", str(key.parent / "out"),
    )  # fmt: skip
    for file in keys:
        allowed = key.parent / "allowed"
        allowed.write_text(f"me {Path(f'{file}.pub').read_text()}")
        run(
            "ssh-keygen", "-Y", "verify", "-f", str(allowed), "-I", "me", "-n", "test",
            "-s", str(key.parent / "out" / f"{file.name}.sig"), input="text\n",
        )  # fmt: skip


def test_a_step_can_read_the_agent_and_not_change_it(root: Path, context: Path, key: Path) -> None:
    with agent_with(key) as agent:
        text = output(
            root, context,
            "FROM tools:1\nRUN --mount=type=ssh ssh-add -D; ssh-keygen -q -t ed25519 -N '' -f /k; ssh-add /k;"
            " echo p | ssh-add -x; ssh-add -l\n",
            "--ssh", f"default={agent}",
        )  # fmt: skip
        assert "Failed to remove all identities" in text
        assert "Could not add identity" in text
        assert fingerprint(key) in text
        listed = run("ssh-add", "-l", agent=agent)
    assert len(listed.splitlines()) == 1
    assert fingerprint(key) in listed


def test_owner_and_mode_of_the_socket_are_as_asked(root: Path, context: Path, key: Path) -> None:
    dockerfile = """FROM tools:1
RUN --mount=type=ssh stat -c 'first %a %u %g' $SSH_AUTH_SOCK
RUN --mount=type=ssh,uid=1000,gid=2000,mode=0640 stat -c 'second %a %u %g' $SSH_AUTH_SOCK
USER 1000:2000
RUN --mount=type=ssh,uid=1000,gid=2000 ssh-add -l; echo own $?
RUN --mount=type=ssh ssh-add -l; echo other $?
"""
    text = output(root, context, dockerfile, "--ssh", f"default={key}")
    assert "first 600 0 0" in text
    assert "second 640 1000 2000" in text
    assert "own 0" in text
    assert "other 2" in text  # 2: ssh-add cannot reach an agent


def test_an_agent_may_be_missing_unless_it_is_required(root: Path, context: Path) -> None:
    assert "code 2" in output(root, context, LIST)
    text = output(root, context, "FROM tools:1\nRUN --mount=type=ssh,id=x,required ssh-add -l\n", code=2)
    assert "no ssh agent 'x' was given" in text
    assert "hint: forward one with --ssh x" in text


def test_nothing_of_an_agent_or_a_key_is_left(fresh_root: Path, tmp_path: Path, key: Path) -> None:
    from tests.support.builder import make_base

    make_base(fresh_root, tmp_path / "base")
    secret = key.read_bytes().splitlines()[2]
    dockerfile = "FROM base:1\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo > /made\n"
    context = write_files(tmp_path / "empty", {})
    build_text(fresh_root, context, dockerfile, "--ssh", f"default={key}")
    for directory, _, files in os.walk(fresh_root):
        for name in files:
            assert secret not in Path(directory, name).read_bytes(), os.path.join(directory, name)
    assert not any((fresh_root / "drafts").iterdir())
    commands = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(fresh_root) not in commands


def test_a_store_with_a_long_path_has_room_for_sockets(tmp_path: Path, key: Path) -> None:
    from tests.support.builder import make_base

    root = tmp_path / ("long" * 20) / ("path" * 20)
    make_base(root, tmp_path / "base")
    dockerfile = "FROM base:1\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo is there\n"
    assert "is there" in output(root, write_files(tmp_path / "c", {}), dockerfile, "--ssh", f"default={key}")


def test_repositories_are_fetched_with_the_agent_of_the_build(root: Path, context: Path, key: Path) -> None:
    place = write_files(
        key.parent / "git", {"work/file": "of the repository", "work/Dockerfile": "FROM scratch\nCOPY . /\n"}
    )
    for command in ("init -q -b main", "add -A", "-c user.name=a -c user.email=a@b commit -qm one"):
        subprocess.run(["git", "-C", str(place / "work"), *command.split()], check=True)
    # In ssh's place: says whose keys it was offered, then does on this host what it was to do on the other.
    ssh = place / "ssh"
    ssh.write_text(f'#!/bin/sh\nssh-add -l >> {place}/keys 2>&1\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o755)
    env = {"GIT_SSH_COMMAND": str(ssh), "GIT_SSH_VARIANT": "simple"}
    url = f"ssh://host.invalid{place}/work/.git"
    output(root, context, f"FROM scratch\nADD {url} /\n", "--ssh", f"default={key}", env=env)
    assert set(Path(place, "keys").read_text().split()) >= {fingerprint(key)}
    Path(place, "keys").unlink()
    build(
        root,
        Path(f"git@host.invalid:{place}/work/.git"),
        "--ssh",
        f"default={key}",
        "-o",
        str(place / "out"),
        env=env,
    )
    assert fingerprint(key) in Path(place, "keys").read_text()
    assert (place / "out" / "file").read_text() == "of the repository"


def test_an_image_of_a_project_has_the_keys_and_agents_its_pipe_yaml_names(
    root: Path, context: Path, key: Path
) -> None:
    text = (
        "name: keys\nimages:\n  app:\n    ssh: [default, deploy=./keys/id]\n    dockerfile_inline: |\n"
        "      FROM tools:1\n      RUN --mount=type=ssh ssh-add -l\n      RUN --mount=type=ssh,id=deploy ssh-add -l\n"
    )
    other = make_key(key.parent, "ecdsa")
    directory = write_files(key.parent / "project", {"pipe.yaml": text, "keys/id": other.read_bytes()})
    with agent_with(key) as agent:
        done = run_pipe(root, "build", cwd=directory, env={"SSH_AUTH_SOCK": agent})
    assert fingerprint(key) in done.stderr.decode()
    assert fingerprint(other) in done.stderr.decode()
    failed = run_pipe(root, "build", "--no-cache", cwd=directory, code=2)
    assert b"--ssh default: no agent is running" in failed.stderr


# --- what cannot be used, said before anything is built -----------------------------------------------------------


def said(root: Path, context: Path, value: str, code: int, env: Mapping[str, str] = {}) -> str:
    text = output(root, context, LIST, "--ssh", value, code=code, env=env)
    assert "ssh-add -l" not in text.split("hint")[0], "nothing was run"
    return text


def test_a_dead_agent_is_told(
    root: Path, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)  # its whole path may be too long for a socket
        listener.bind("dead")
    text = said(root, context, "default", 3, {"SSH_AUTH_SOCK": str(place)})
    assert f"the agent at {place} does not answer: Connection refused" in text


def test_a_key_with_a_passphrase_is_told(root: Path, context: Path, tmp_path: Path) -> None:
    for form in ("", "PEM", "PKCS8"):
        locked = make_key(tmp_path, "rsa", passphrase="secret words", form=form)
        text = said(root, context, f"default={locked}", 2)
        assert f"the key {locked} is protected by a passphrase" in text
        assert "hint: add it to an agent with ssh-add" in text


def test_what_is_neither_a_key_nor_an_agent_is_told(root: Path, context: Path, key: Path) -> None:
    assert "no agent is running" in said(root, context, "default", 2)
    assert "No such file" in said(root, context, "default=/nowhere", 2)
    text = said(root, context, f"default={key}.pub", 2)
    assert "is no private key" in text
    assert "give the private half" in text
    broken = key.parent / "broken"
    broken.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    assert f"the key {broken} cannot be used" in output(
        root, context, LIST, "--ssh", f"default={broken}", code=2
    )
    with agent_with(key) as agent:
        assert "an agent goes alone" in said(root, context, f"default={agent},{key}", 2)
