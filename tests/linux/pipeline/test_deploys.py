"""Deploys on this host: what users of the service see while releases come and go."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.pipe_command import PATIENCE, Project, end, wait_for_line
from tests.support.registry import docker_registry

pytestmark = pytest.mark.linux

TEXT = """
    stages:
      check: {image: box, run: "%(check)s"}
    deploy:
      live:
        services:
          web:
            image: box
            command: [sh, -c, "mkdir /www; echo %(page)s > /www/index.html; exec httpd -f -p 8080 -h /www"]
            ports: ["127.0.0.1:%(port)s:8080"]
            restart: unless-stopped
            stop_signal: SIGKILL  # a httpd that is pid 1 does not hear TERM
        health: {http: "http://127.0.0.1:%(port)s/%(path)s", timeout: %(patience)s, interval: 100ms}
        %(more)s
    """


def free_port() -> int:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


def write(project: Project, port: int, page: str, **changes: str) -> None:
    values = {
        "check": "true",
        "page": page,
        "port": port,
        "path": "",
        "patience": "60s",
        "more": "",
        **changes,
    }
    project.write(TEXT % values)


def page(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            return str(answer.read().decode().strip())
    except urllib.error.URLError as error:
        return f"no answer: {error.reason}"


def test_a_release_lives_on_a_failed_one_leaves_it_and_a_rollback_brings_it_back(project: Project) -> None:
    port = free_port()
    write(project, port, "one")
    done = project.pipe("deploy", "live")
    assert f"at http://127.0.0.1:{port}" in done.out
    assert page(port) == "one"
    assert project.containers() == [f"{project.name}-live-web-1"]

    again = project.pipe("deploy", "live")
    assert "1 deploy cached" in again.out

    write(project, port, "two", check="false")
    blocked = project.pipe("deploy", "live", code=1)
    assert "stage check: exit 1" in blocked.err
    assert page(port) == "one"

    write(project, port, "two", path="missing", patience="1s")
    failed = project.pipe("deploy", "live", code=1)
    assert "answered 404" in failed.err
    assert page(port) == "one"
    assert project.containers() == [f"{project.name}-live-web-1"]

    write(project, port, "two")
    project.pipe("deploy", "live")
    assert page(port) == "two"

    project.pipe("rollback", "live")
    assert page(port) == "one"
    history = project.pipe("env", "live").out
    assert "rollback to 1" in history and "failed" in history

    project.pipe("env", "live", "--down")
    assert project.containers() == []
    assert "no answer" in page(port)


def test_a_deploy_that_wants_approval_exits_5_and_has_not_begun(project: Project) -> None:
    port = free_port()
    write(project, port, "one", more="approve: true")
    done = project.pipe("deploy", "live", code=5)
    assert "waits for approval" in done.out
    assert project.containers() == []
    assert "waiting" in project.pipe("runs", "-n", "1").out
    project.pipe("resume", "--approve")
    assert page(port) == "one"
    project.pipe("env", "live", "--down")


def test_what_was_tested_is_pushed_to_the_embedded_registry(project: Project) -> None:
    port = free_port()
    write(project, port, "one")
    project.pipe("deploy", "live")
    listed = project.pipe("images").out
    assert f"{project.name}/box" in listed
    project.pipe("env", "live", "--down")


@pytest.mark.peer
def test_a_registry_holds_the_very_image_that_was_tested(project: Project, tmp_path: Path) -> None:
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.skip("skopeo is not installed")
    with docker_registry(tmp_path) as registry:
        port = free_port()
        write(project, port, "one")
        text = (project.directory / "pipe.yaml").read_text()
        prefix = f"{registry.host}/{project.name}"
        (project.directory / "pipe.yaml").write_text(
            text.replace("images:\n  box: {", f"registry: {prefix}\nimages:\n  box: {{tags: [tested], ", 1)
        )
        done = project.pipe("deploy", "live")
        command = [skopeo, "inspect", "--tls-verify=false", "--raw", f"docker://{prefix}/box:tested"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert ran.returncode == 0, ran.stderr
        config = json.loads(ran.stdout)["config"]["digest"]
        assert config.removeprefix("sha256:")[:12] in done.out
        running = project.pipe("inspect", f"{project.name}-live-web-1").out
        assert json.loads(running)[0]["Image"] == config
        project.pipe("env", "live", "--down")


@pytest.mark.peer
def test_an_image_of_several_platforms_is_pushed_as_their_index(project: Project, tmp_path: Path) -> None:
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.skip("skopeo is not installed")
    inline = 'both: {dockerfile_inline: "FROM scratch\\nCOPY pipe.yaml /", platforms: [linux/amd64, linux/arm64], push: true}'
    with docker_registry(tmp_path) as registry:
        write(project, free_port(), "one")
        text = (project.directory / "pipe.yaml").read_text()
        prefix = f"{registry.host}/{project.name}"
        (project.directory / "pipe.yaml").write_text(
            text.replace("images:\n", f"registry: {prefix}\nimages:\n  {inline}\n", 1)
        )
        project.pipe("deploy", "live")
        command = [skopeo, "inspect", "--tls-verify=false", "--raw", f"docker://{prefix}/both:latest"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert ran.returncode == 0, ran.stderr
        platforms = [each["platform"]["architecture"] for each in json.loads(ran.stdout)["manifests"]]
        assert platforms == ["amd64", "arm64"]
        project.pipe("env", "live", "--down")


def test_after_a_kill_in_the_middle_the_next_deploy_puts_all_right(project: Project) -> None:
    port = free_port()
    write(project, port, "one")
    project.pipe("deploy", "live")
    write(project, port, "two", path="missing")
    process = project.start("deploy", "live")
    wait_for_line(process, "replacing it")
    end(process)
    write(project, port, "three")
    project.pipe("deploy", "live")
    assert page(port) == "three"
    assert project.containers() == [f"{project.name}-live-web-1"]
    project.pipe("env", "live", "--down")
