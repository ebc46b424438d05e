"""What git says of a work tree, asked of real repositories."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.config.load import Surroundings
from pipeline.gitfacts import GitFacts, commit_and_branch
from pipeline.hooks import commit_tree, install, pushed_commits, staged_tree, uninstall
from runtime.errors import Conflict, InvalidInput, NotFound
from tests.support.pipeline import loaded, planned

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(directory: Path, *words: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    identity = [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.com",
        "-c",
        "commit.gpgsign=false",
        "-c",
        "tag.gpgsign=false",
    ]
    done = subprocess.run(
        ["git", *identity, *words],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    directory = tmp_path / "repo"
    directory.mkdir()
    git(directory, "init", "-q", "-b", "main")
    (directory / "a").write_text("1")
    git(directory, "add", "-A")
    git(directory, "commit", "-q", "-m", "first")
    return directory


def facts(directory: Path, *names: str) -> list[str | None]:
    found = GitFacts(str(directory))
    try:
        return [found.get(name) for name in names]
    finally:
        found.close()


def test_facts_of_a_clean_work_tree(repository: Path) -> None:
    sha = git(repository, "rev-parse", "HEAD")
    git(repository, "tag", "v1.0")
    assert facts(repository, "sha", "short", "branch", "tag", "describe", "dirty", "message", "author") == [
        sha, sha[:7], "main", "v1.0", "v1.0", None, "first", "t@example.com",
    ]  # fmt: skip


def test_a_change_makes_it_dirty(repository: Path) -> None:
    (repository / "new").write_text("x")
    assert facts(repository, "dirty") == ["true"]


def test_a_damaged_repository_or_one_git_refuses_has_no_commit_to_tell(repository: Path) -> None:
    sha = git(repository, "rev-parse", "HEAD")
    known = GitFacts(str(repository))
    assert known.vcs == {"revision": sha}
    known.close()
    (repository / ".git/index").write_bytes(b"no index")
    refused = GitFacts(str(repository))
    assert refused.vcs == {}
    refused.close()


def test_outside_of_a_repository_all_is_empty(tmp_path: Path) -> None:
    assert facts(tmp_path, "sha", "branch") == [None, None]
    assert commit_and_branch(str(tmp_path)) == ("", "")


def test_before_the_first_commit_all_is_empty(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    assert facts(tmp_path, "sha", "branch") == [None, None]


def test_commit_and_branch_are_read_without_git(repository: Path) -> None:
    sha = git(repository, "rev-parse", "HEAD")
    assert commit_and_branch(str(repository)) == (sha, "main")
    git(repository, "pack-refs", "--all")
    assert commit_and_branch(str(repository)) == (sha, "main")
    git(repository, "worktree", "add", "-q", "-b", "feature/x", "../tree")
    assert commit_and_branch(str(repository.parent / "tree")) == (sha, "feature/x")
    git(repository, "checkout", "-q", "--detach")
    assert commit_and_branch(str(repository)) == (sha, "")


def test_a_detached_checkout_believes_the_ci_service(repository: Path) -> None:
    git(repository, "checkout", "-q", "--detach")
    surroundings = Surroundings(str(repository), {"CI_COMMIT_BRANCH": "release"})
    assert surroundings.lookup("git.branch") == "release"
    surroundings.git.close()


def test_changes_are_those_since_the_merge_base_and_what_is_not_committed(repository: Path) -> None:
    git(repository, "checkout", "-q", "-b", "work")
    (repository / "b").write_text("1")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "second")
    (repository / "c d").write_text("1")
    git(repository, "checkout", "-q", "main")
    (repository / "m").write_text("1")
    git(repository, "add", "m")
    git(repository, "commit", "-q", "-m", "meanwhile")
    git(repository, "checkout", "-q", "work")
    found = GitFacts(str(repository))
    assert found.changed == ("b", "c d")
    found.close()


def test_a_first_commit_has_nothing_to_compare_with(repository: Path) -> None:
    found = GitFacts(str(repository))
    assert found.changed is None
    found.close()


def test_only_what_is_affected_is_planned(repository: Path) -> None:
    git(repository, "checkout", "-q", "-b", "work")
    (repository / "docs").mkdir()
    (repository / "docs" / "x.md").write_text("1")
    text = "images: {app: {}}\nstages:\n  docs: {image: app, when: {changes: docs}}\n  code: {image: app, when: {changes: 'src/**'}}\n"
    pipeline = loaded(repository, text)
    plan = planned(pipeline)
    pipeline.surroundings.git.close()
    assert plan.node("stage/docs").condition == "docs/x.md changed"
    assert plan.node("stage/code").skip == "no changed file matches src/**"


def test_staged_content_is_checked_out_beside_the_work_tree(repository: Path) -> None:
    (repository / "a").write_text("staged")
    git(repository, "add", "a")
    (repository / "a").write_text("only in the work tree")
    with staged_tree(str(repository)) as tree:
        assert (Path(tree) / "a").read_text() == "staged"
    assert not Path(tree).exists()
    assert (repository / "a").read_text() == "only in the work tree"


def test_a_commit_is_exported_as_it_is(repository: Path) -> None:
    sha = git(repository, "rev-parse", "HEAD")
    (repository / "a").write_text("changed")
    with commit_tree(str(repository), sha) as tree:
        assert (Path(tree) / "a").read_text() == "1"


def test_pushed_commits_leave_out_deleted_refs() -> None:
    zero = "0" * 40
    lines = (
        f"refs/heads/a {'1' * 40} refs/heads/a {zero}\n(delete) {zero} refs/heads/b {'2' * 40}\nnonsense\n"
    )
    assert pushed_commits(lines) == ["1" * 40]


def test_hooks_keep_what_was_there_and_give_it_back(repository: Path) -> None:
    hook = repository / ".git" / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\n")
    install(str(repository))
    install(str(repository))  # twice is once
    assert hook.with_name("pre-push.before-pipe").read_text() == "#!/bin/sh\n"
    assert os.access(repository / ".git" / "hooks" / "pre-commit", os.X_OK)
    uninstall(str(repository))
    assert hook.read_text() == "#!/bin/sh\n"
    assert not (repository / ".git" / "hooks" / "pre-commit").exists()


def test_a_third_hook_in_the_way_is_a_conflict(repository: Path) -> None:
    hooks = repository / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("pre-push", "pre-push.before-pipe"):
        (hooks / name).write_text("#!/bin/sh\n")
    with pytest.raises(Conflict):
        install(str(repository), ("pre-push",))


def test_hooks_need_a_repository_and_a_known_name(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(NotFound):
        install(str(tmp_path))
    with pytest.raises(InvalidInput, match="unknown hook") as caught:
        install(str(repository), ("pre-comit",))
    assert caught.value.hint == "did you mean `pre-commit`?"
