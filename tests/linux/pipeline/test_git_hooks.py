"""Git hooks: a commit is judged by what is staged, not by what lies about."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.pipe_command import PATIENCE, Project

pytestmark = pytest.mark.linux


def git(project: Project, *words: str, code: int = 0) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *identity, *words],
        cwd=project.directory,
        env=project.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_commit_is_judged_by_what_is_staged(project: Project) -> None:
    project.write("""
        stages:
          check: {image: box, checkout: true, run: 'grep -q good file'}
        """)
    (project.directory / "file").write_text("good\n")
    git(project, "init", "-q", "-b", "main")
    hook = project.directory / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho the old hook ran >&2\n")
    hook.chmod(0o755)
    project.pipe("hooks", "install", "pre-commit")
    git(project, "add", "-A")
    (project.directory / "file").write_text("bad, but not staged\n")
    assert "the old hook ran" in git(project, "commit", "-q", "-m", "first")

    git(project, "add", "-A")
    (project.directory / "file").write_text("good, but not staged\n")
    refused = git(project, "commit", "-q", "-m", "second", code=1)
    assert "stage check: exit 1" in refused
    assert (project.directory / "file").read_text() == "good, but not staged\n"
    git(project, "commit", "-q", "--no-verify", "-m", "second")

    project.pipe("hooks", "uninstall", "pre-commit")
    assert hook.read_text() == "#!/bin/sh\necho the old hook ran >&2\n"
