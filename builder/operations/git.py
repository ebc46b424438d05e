"""A tree of a git repository: for ADD, for contexts (A-77, A-93). Kept by commit, so a known commit is not fetched."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from builder.graph import GitSource
from builder.keys import Shape
from builder.lower.remotes import without_credentials
from builder.operations import fetched
from builder.operations.roots import Root
from builder.state import FilesState
from runtime.errors import InvalidInput, NotFound, Unavailable
from runtime.store.store import Store

if TYPE_CHECKING:
    from builder.ssh import Agent

_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
# No helper may be named by a URL, and nothing may ask for a password on our terminal.
_ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "http:https:git:ssh",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    # What is kept of a repository says nothing of who fetched it, and when.
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "core.logAllRefUpdates",
    "GIT_CONFIG_VALUE_0": "false",
}


def fetch_git(store: Store, operation: GitSource, agent: Agent) -> FilesState:
    """The tree at `ref`, from `subdir` on. Over ssh the agent `default` of the build signs, else whichever git finds."""
    socket = agent("default") if _is_ssh(operation.url) else None
    commit, ref = _resolve(operation, socket)
    if operation.checksum and not commit.startswith(operation.checksum):
        raise InvalidInput(f"{operation.url} has commit {commit}, not {operation.checksum}")
    kept = ref if operation.keep_git_dir else ""
    shape = Shape.of(
        "git.v3",
        {
            "url": operation.url,
            "keep .git": operation.keep_git_dir,
            "ref": kept,
            "submodules": operation.submodules,
        },
    )
    record = fetched.find(store, shape, commit)
    if record is None:
        record = fetched.keep(
            store,
            shape,
            commit,
            lambda place: _check_out(operation, commit, kept, place, socket),
            {"commit": commit},
        )
    top = store.snapshots.path(record.snapshot)
    subdir = Root(top).resolve(operation.subdir)
    # The checkout gave everything the commit's time.
    time = int(os.stat(top).st_mtime)
    files = fetched.as_files(store, record, name=operation.url, subdir=subdir, time=time)
    if not os.path.isdir(files.tree.path):
        raise NotFound(f"no directory {operation.subdir} in {operation.url} at {commit[:12]}")
    return files


def _is_ssh(url: str) -> bool:
    return url.startswith("ssh://") or "://" not in url


def _git(agent: str | None, directory: str | None = None) -> Any:
    import git

    command = git.Git(directory)
    command.update_environment(**_ENVIRONMENT)
    if agent is not None:
        command.update_environment(SSH_AUTH_SOCK=agent)
    return command


def _resolve(operation: GitSource, agent: str | None) -> tuple[str, str]:
    """The commit of a ref and the ref in full: asked from the server, unless it is a commit already, which has none."""
    if _COMMIT.fullmatch(operation.ref):
        return operation.ref, ""
    wanted = operation.ref or "HEAD"
    lines = _run(operation, lambda: _git(agent).ls_remote("--", operation.url)).splitlines()
    refs = {name: commit for commit, _, name in (line.partition("\t") for line in lines)}
    for name in (wanted, f"refs/heads/{wanted}", f"refs/tags/{wanted}^{{}}", f"refs/tags/{wanted}"):
        # A tag object's commit is the peeled one.
        if commit := refs.get(f"{name}^{{}}") or refs.get(name):
            return commit, name.removesuffix("^{}") if name.startswith("refs/") else ""
    raise NotFound(f"{operation.url} has no ref {wanted!r}")


def _check_out(operation: GitSource, commit: str, ref: str, place: str, agent: str | None) -> None:
    git = _git(agent, place)

    def work() -> str:
        git.init("--quiet", "--template=", place)
        try:
            git.fetch("--quiet", "--depth=1", "--", operation.url, commit)
        except Exception:  # noqa: BLE001  many servers give no bare commits, and dumb ones know no depth
            git.fetch("--quiet", "--tags", "--", operation.url, "+refs/*:refs/remotes/origin/*")
        git.checkout("--quiet", "--detach", commit)
        if operation.submodules and os.path.exists(os.path.join(place, ".gitmodules")):
            git.remote("add", "origin", operation.url)
            git.submodule("update", "--init", "--recursive", "--quiet")
        return ""

    _run(operation, work)
    time = int(_run(operation, lambda: git.log("-1", "--format=%ct", commit)))
    if operation.keep_git_dir:
        _run(operation, lambda: _settle(git, operation, commit, ref, place))
    else:
        _drop_git(place)
    _set_times(place, time * 10**9)


def _settle(git: Any, operation: GitSource, commit: str, ref: str, place: str) -> str:
    """Leave in .git what is the same for everybody who fetches this commit: its ref and origin, no traces of the fetch."""
    if ref:
        git.update_ref(ref, commit)
    if "origin" not in git.remote().split():
        git.remote("add", "origin", without_credentials(operation.url))
    for name in ("FETCH_HEAD", "ORIG_HEAD"):
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(place, ".git", name))
    git.read_tree(commit)  # an index without this disk's inodes and times
    return ""


def _set_times(place: str, time_ns: int) -> None:
    """When a file was checked out says nothing of it, and would make every clone another layer."""
    for directory, names, files in os.walk(place, topdown=False):
        for name in (*names, *files):
            os.utime(os.path.join(directory, name), ns=(time_ns, time_ns), follow_symlinks=False)
    os.utime(place, ns=(time_ns, time_ns))


def _drop_git(place: str) -> None:
    for directory, names, files in os.walk(place):
        if ".git" in names:
            names.remove(".git")
            shutil.rmtree(os.path.join(directory, ".git"))
        if ".git" in files:
            os.unlink(os.path.join(directory, ".git"))


def _run(operation: GitSource, action: Any) -> str:
    import git

    try:
        return str(action())
    except git.GitCommandNotFound as error:
        raise Unavailable("git is not installed", hint="install the package git") from error
    except git.GitCommandError as error:
        raise Unavailable(f"cannot fetch {without_credentials(operation.url)}: {_reason(error)}") from error


def _reason(error: Any) -> str:
    """What went wrong is said first; advice, and what git was about to do, stand around it."""
    said = str(error.stderr).strip().removeprefix("stderr:").strip(" '\n").splitlines()
    told = [
        line for line in said if line.strip() and not line.startswith(("Cloning into", "warning:", "hint:"))
    ]
    return told[0].strip() if told else f"git ended with {error.status}"
