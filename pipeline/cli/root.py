"""The group `pipe`: its options, and its commands, each imported when it is called."""

from __future__ import annotations

import sys

import click

from pipeline.cli.commands import COMMANDS
from pipeline.cli.session import Session
from pipeline.settings import environment, load_settings
from runtime import errors


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.name for entry in COMMANDS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        for entry in COMMANDS:
            if entry.name == name:
                return _load(entry.target)
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            hint = errors.did_you_mean(name, [entry.name for entry in COMMANDS])
            raise errors.InvalidInput(
                f"unknown command `{name}`", hint=hint or "`pipe --help` lists the commands"
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(entry.section for entry in COMMANDS):
            with formatter.section(section):
                formatter.write_dl([(e.name, e.help) for e in COMMANDS if e.section == section])


def _load(target: str) -> click.Command:
    from importlib import import_module

    module, _, attribute = target.partition(":")
    command = getattr(import_module(module), attribute)
    assert isinstance(command, click.Command)
    return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--root", metavar="DIR", help="The store's directory.")
@click.option("--progress", metavar="KIND", help="auto, tty, plain, jsonl, quiet or none.")
@click.option("--debug", is_flag=True, default=None, help="Log to stderr and show tracebacks.")
@click.pass_context
def pipe(ctx: click.Context, root: str | None, progress: str | None, debug: bool | None) -> None:
    """Build, test and deploy container images."""
    flags = {"root": root, "progress": progress, "debug": "true" if debug else None}
    given = {name: value for name, value in flags.items() if value is not None}
    session = ctx.find_object(Session)
    assert session is not None
    session.settings = load_settings(given, environment())
    if session.settings.debug:
        import logging

        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
