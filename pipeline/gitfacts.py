"""What git says about the work tree. Asked for only when somebody wants to know: GitPython is imported here and in hooks.

`commit_and_branch` reads two small files instead: every run records its commit and must not pay for that.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runtime.errors import HostFault

if TYPE_CHECKING:
    from git import Repo

NAMES = ("branch", "tag", "sha", "short", "describe", "dirty", "author", "message", "default_branch", "root")


class GitFacts:
    """Lazy facts; all are empty outside of a repository or before its first commit."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    @cached_property
    def repository(self) -> Repo | None:
        if not find_git_directory(self.directory):
            return None
        try:
            import git
        except ImportError as error:
            # GitPython looks for the git program when it is imported.
            raise HostFault("git is not installed", hint="apt-get install git") from error
        try:
            return git.Repo(self.directory, search_parent_directories=True)
        except git.exc.GitError as error:
            raise HostFault(f"git cannot read {self.directory}: {error or type(error).__name__}") from error

    def get(self, name: str) -> str | None:
        """The fact `git.NAME`; None where there is none."""
        if name not in NAMES:
            raise KeyError(name)
        return self._facts.get(name) or None

    @cached_property
    def _facts(self) -> dict[str, str]:
        repository = self.repository
        if repository is None or not _has_commit(repository):
            return {}
        head = repository.head.commit
        detached = repository.head.is_detached
        return {
            "sha": head.hexsha,
            "short": head.hexsha[:7],
            "branch": "" if detached else repository.active_branch.name,
            "tag": self._quiet("describe", "--tags", "--exact-match", "HEAD"),
            "describe": self._quiet("describe", "--tags", "--always", "--dirty"),
            "dirty": "true" if repository.is_dirty(untracked_files=True) else "",
            "author": str(head.author.email or ""),
            "message": str(head.summary),
            "default_branch": self._default_branch(),
            "root": str(repository.working_tree_dir or ""),
        }

    def _default_branch(self) -> str:
        remote = self._quiet("symbolic-ref", "--short", "refs/remotes/origin/HEAD").removeprefix("origin/")
        names = [head.name for head in self.repository.heads] if self.repository else []
        return remote or next((name for name in ("main", "master") if name in names), "")

    def _quiet(self, *words: str) -> str:
        from git.exc import GitCommandError

        assert self.repository is not None
        try:
            return str(self.repository.git.execute(["git", *words])).strip()
        except GitCommandError:
            return ""

    @cached_property
    def vcs(self) -> dict[str, str]:
        """Where the work tree came from and at which commit, in buildx's words; empty outside of a repository."""
        repository = self.repository
        if repository is None or not _has_commit(repository):
            return {}
        from git.exc import GitCommandError

        try:
            changes = repository.git.execute(["git", "status", "--porcelain"])
        except GitCommandError:
            return {}  # git refuses a work tree of another owner: better no commit than one nobody compared
        sha, source = repository.head.commit.hexsha, self._quiet("config", "--get", "remote.origin.url")
        revision = f"{sha}-dirty" if changes else sha
        return {"source": source, "revision": revision} if source else {"revision": revision}

    @cached_property
    def changed(self) -> tuple[str, ...] | None:
        """Files that differ from the merge base with the default branch, with those not committed; None without a base."""
        repository = self.repository
        if repository is None or not _has_commit(repository):
            return None
        base = self._base()
        if not base:
            return None
        listed = self._quiet("diff", "--name-only", "--no-renames", "-z", base)
        untracked = self._quiet("ls-files", "--others", "--exclude-standard", "-z")
        return tuple(sorted({name for name in (listed + "\0" + untracked).split("\0") if name}))

    def _base(self) -> str:
        """The merge base; on the default branch itself, the commit before."""
        branch, default = self.get("branch"), self.get("default_branch")
        if default and branch != default:
            return self._quiet("merge-base", "HEAD", default) or self._quiet(
                "merge-base", "HEAD", f"origin/{default}"
            )
        return self._quiet("rev-parse", "--verify", "--quiet", "HEAD~1")

    def close(self) -> None:
        if "repository" in self.__dict__ and self.repository is not None:
            self.repository.close()


def _has_commit(repository: Any) -> bool:
    return bool(repository.head.is_valid())


def find_git_directory(directory: str) -> str:
    """The `.git` of the repository `directory` is in, "" outside of one."""
    directory = os.path.abspath(directory)
    while True:
        path = os.path.join(directory, ".git")
        if os.path.isdir(path):
            return path
        if os.path.isfile(path):
            # A worktree or submodule: the file says where (gitrepository-layout(5)).
            with open(path, encoding="utf-8") as file:
                return os.path.join(directory, file.read().removeprefix("gitdir:").strip())
        parent = os.path.dirname(directory)
        if parent == directory:
            return ""
        directory = parent


def commit_and_branch(directory: str) -> tuple[str, str]:
    """The commit and branch checked out, from the files themselves; empty where there are none."""
    git = find_git_directory(directory)
    head = _read(os.path.join(git, "HEAD")) if git else ""
    if not head.startswith("ref:"):
        return head, ""
    ref = head[4:].strip()
    common = os.path.join(git, _read(os.path.join(git, "commondir")) or ".")
    commit = _read(os.path.join(git, ref)) or _read(os.path.join(common, ref)) or _packed(common, ref)
    return commit, ref.removeprefix("refs/heads/")


def _packed(git: str, ref: str) -> str:
    lines = _read(os.path.join(git, "packed-refs")).splitlines()
    return next((line.split(" ")[0] for line in lines if line.endswith(" " + ref)), "")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""
