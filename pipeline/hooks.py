"""Git hooks that run the pipeline on exactly what is about to be committed or pushed.

A hook never touches the work tree: staged content is checked out beside it (`git checkout-index`), a pushed commit is
checked out by an index of its own. Hooks of others are kept, and run first.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runtime.errors import Conflict, InvalidInput, NotFound
from runtime.store.owners import own_token
from runtime.temporary import sweep

if TYPE_CHECKING:
    from git import Repo

HOOKS = ("pre-commit", "pre-push")
_MARK = "# installed by `pipe hooks install`"
_KEPT = ".before-pipe"
_PREFIX = "pipe-hook-"
NOTHING = "0" * 40


def _script(hook: str) -> str:
    """Runs the hook that was there before, then ours. `git commit --no-verify` skips both, as always."""
    return f"""#!/bin/sh
{_MARK}
set -e
before="$0{_KEPT}"
if [ -x "$before" ]; then "$before" "$@"; fi
exec {shlex.quote(sys.executable)} -m pipeline.cli.main hooks run {hook} "$@"
"""


def open_repository(directory: str) -> Repo:
    """The repository `directory` is in."""
    from pipeline.gitfacts import GitFacts

    repository = GitFacts(directory).repository
    if repository is None or repository.bare:
        raise NotFound(f"{os.path.abspath(directory)} is not in a git work tree", hint="`git init` makes one")
    return repository


def _directory(repository: Repo) -> str:
    """Where its hooks are: core.hooksPath, else below the common git directory."""
    path = str(repository.git.execute(["git", "rev-parse", "--git-path", "hooks"]))
    return os.path.normpath(os.path.join(str(repository.working_dir), path))


def install(directory: str, hooks: tuple[str, ...] = HOOKS) -> list[str]:
    """Write the hooks; one that is there already is kept and will be run first."""
    with open_repository(directory) as repository:
        target = _directory(repository)
        os.makedirs(target, exist_ok=True)
        for hook in hooks:
            path = os.path.join(target, check_hook(hook))
            if os.path.lexists(path) and not _is_ours(path):
                if os.path.lexists(path + _KEPT):
                    raise Conflict(f"{path} and {path}{_KEPT} are both there", hint="remove one of them")
                os.rename(path, path + _KEPT)
            _write(path, _script(hook))
        return [os.path.join(target, hook) for hook in hooks]


def uninstall(directory: str, hooks: tuple[str, ...] = HOOKS) -> list[str]:
    """Remove ours, and put back what was there before."""
    removed = []
    with open_repository(directory) as repository:
        for hook in hooks:
            path = os.path.join(_directory(repository), check_hook(hook))
            if os.path.lexists(path) and _is_ours(path):
                os.unlink(path)
                removed.append(path)
                if os.path.lexists(path + _KEPT):
                    os.rename(path + _KEPT, path)
    return removed


def check_hook(hook: str) -> str:
    if hook not in HOOKS:
        from runtime.errors import did_you_mean

        raise InvalidInput(
            f"unknown hook {hook!r}", hint=did_you_mean(hook, HOOKS) or f"known are {', '.join(HOOKS)}"
        )
    return hook


def _is_ours(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return _MARK in file.read(4096)
    except OSError:
        return False


def _write(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(temporary, 0o755)
    os.rename(temporary, path)


@contextmanager
def staged_tree(directory: str) -> Iterator[str]:
    """A directory with what the next commit will contain."""
    with open_repository(directory) as repository, _temporary() as target:
        repository.git.execute(["git", "checkout-index", "--all", f"--prefix={target}/"])
        yield target


@contextmanager
def commit_tree(directory: str, commit: str) -> Iterator[str]:
    """A directory with what a commit contains."""
    with open_repository(directory) as repository, _temporary() as target:
        # An index of its own: neither the work tree nor what is staged is touched.
        index = {"GIT_INDEX_FILE": os.path.join(os.path.dirname(target), "index")}
        repository.git.execute(["git", "read-tree", commit], env=index)
        repository.git.execute(["git", "checkout-index", "--all", f"--prefix={target}/"], env=index)
        yield target


@contextmanager
def _temporary() -> Iterator[str]:
    sweep(tempfile.gettempdir(), _PREFIX)
    base = tempfile.mkdtemp(prefix=f"{_PREFIX}{own_token()}-")
    try:
        target = os.path.join(base, "tree")
        os.mkdir(target)
        yield target
    finally:
        shutil.rmtree(base, onerror=_make_writable)


def _make_writable(function: object, path: str, info: object) -> None:
    os.chmod(os.path.dirname(path), stat.S_IRWXU)
    if os.path.lexists(path):
        os.unlink(path)


def pushed_commits(lines: str) -> list[str]:
    """The commits a pre-push hook is told of on standard input (githooks(5)); deleted refs have none."""
    found = []
    for line in lines.splitlines():
        words = line.split()
        if len(words) == 4 and words[1] != NOTHING:
            found.append(words[1])
    return list(dict.fromkeys(found))
