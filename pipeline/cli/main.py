"""The entry of `pipe`: settings, the lazily loaded commands, and what an error does to the exit code.

The table below is the only place that turns an error's category into an exit code. Anything that is not a `PipeError`
is a bug: one line for the user, a log file with the versions and the traceback, exit code 3.
"""

from __future__ import annotations

import sys

import click

from pipeline.cli.commands import COMMANDS
from pipeline.cli.session import Session
from pipeline.settings import environment, load_settings
from runtime import errors

EXIT_CODES: tuple[tuple[type[errors.PipeError], int], ...] = (
    (errors.InvalidInput, 2),
    (errors.NotFound, 2),
    (errors.Unsupported, 2),
    (errors.Conflict, 1),
    (errors.Denied, 1),
    (errors.StepFailed, 1),
    (errors.TimedOut, 4),
    (errors.Cancelled, 130),
    (errors.Unavailable, 3),
    (errors.HostFault, 3),
)


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


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code of DESIGN.md (0, 1, 2, 3, 4, 130), or the container's own for `run` and `exec`."""
    session = Session()
    try:
        result = pipe.main(args=arguments, prog_name="pipe", standalone_mode=False, obj=session)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except errors.PipeError as error:
        from pipeline.ui.errors import show_error

        show_error(error)
        return exit_code(error)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _broken_pipe()
    except Exception as error:  # noqa: BLE001  the last place that can say anything to the user
        from pipeline.ui.errors import report_bug

        report_bug(error, session.debug)
        return 3
    finally:
        session.close()


def exit_code(error: errors.PipeError) -> int:
    """The exit code of an error's category."""
    return next((code for category, code in EXIT_CODES if isinstance(error, category)), 3)


def _broken_pipe() -> int:
    """Whoever read our output has gone (`pipe ps | head`): not an error, and nothing more may be written."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    main()
