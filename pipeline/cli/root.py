"""The group `pipe`: its options, and its commands, each imported when it is called."""

from __future__ import annotations

import click

from pipeline.cli.begin import TABLE, begin
from pipeline.cli.commands import COMMANDS
from pipeline.cli.flags import Flag
from pipeline.cli.session import Session
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


def _option(flag: Flag) -> click.Option:
    if flag.kind == "switch":
        return click.Option([f"--{flag.name}"], is_flag=True, default=None, help=flag.help)
    return click.Option([f"--{flag.name}"], metavar=flag.metavar, help=flag.help)


@click.pass_context
def _pipe(ctx: click.Context, /, **flags: str | bool | None) -> None:
    session = ctx.find_object(Session)
    assert session is not None
    # A switch that was given is True, which settings write `true`.
    begin(session, {name: str(value).lower() if value is True else str(value)
                    for name, value in flags.items() if value is not None})  # fmt: skip


pipe = LazyGroup(
    "pipe",
    callback=_pipe,
    params=[_option(flag) for flag in TABLE],
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Build, test and deploy container images.",
)
