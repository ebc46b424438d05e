"""`pipe hooks`."""

from __future__ import annotations

import os
import sys

import click

from pipeline.cli.session import Session


@click.group()
def hooks() -> None:
    """Install or run the git hooks."""


_NAMES = click.argument("names", nargs=-1, metavar="[pre-commit|pre-push]...")


@hooks.command()
@_NAMES
def install(names: tuple[str, ...]) -> int:
    """Run the stages on what is staged before a commit, and on what is sent before a push."""
    from pipeline import hooks as git_hooks

    for path in git_hooks.install(".", names or git_hooks.HOOKS):
        click.echo(path)
    return 0


@hooks.command()
@_NAMES
def uninstall(names: tuple[str, ...]) -> int:
    """Remove the hooks, and put back what was there before."""
    from pipeline import hooks as git_hooks

    for path in git_hooks.uninstall(".", names or git_hooks.HOOKS):
        click.echo(f"removed {path}")
    return 0


@hooks.command("run")
@click.argument("hook")
@click.argument("arguments", nargs=-1)
@click.pass_obj
def run_hook(session: Session, hook: str, arguments: tuple[str, ...]) -> int:
    """What the installed hook calls: the stages, on staged content or on the commits to be pushed."""
    from pipeline import hooks as git_hooks

    here = os.getcwd()
    if hook == "pre-push":
        lines = "" if sys.stdin.isatty() else sys.stdin.read()
        for commit in git_hooks.pushed_commits(lines):
            with git_hooks.commit_tree(here, commit) as tree:
                _test(session, tree, here, hook)
        return 0
    with git_hooks.staged_tree(here) as tree:
        return _test(session, tree, here, git_hooks.check_hook(hook))


def _test(session: Session, tree: str, here: str, hook: str) -> int:
    """Green, or an error. A tree without a pipe.yaml has nothing to say."""
    from pipeline.commands import run_pipeline
    from pipeline.config.load import FILE_NAMES

    name = next((name for name in FILE_NAMES if os.path.isfile(os.path.join(tree, name))), "")
    if not name:
        return 0
    return run_pipeline(session, kind="test", directory=tree, home=here, env={"PIPE_HOOK": hook})
