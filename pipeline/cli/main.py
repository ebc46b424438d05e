"""The entry of `pipe`: settings, the lazily loaded commands, and what an error does to the exit code.

The table below is the only place that turns an error's category into an exit code. Anything that is not a `PipeError`
is a bug: one line for the user, a log file with the versions and the traceback, exit code 3.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress

from pipeline.cli.begin import begin, read_flags
from pipeline.cli.session import Session
from pipeline.settings import environment
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


def _run(session: Session, arguments: tuple[str, ...]) -> int:
    from pipeline.cli.run_command import run as command

    return command(session, arguments)


def _build(session: Session, arguments: tuple[str, ...]) -> int | None:
    from pipeline.cli.build import build_directly

    return build_directly(session, arguments)


# Commands that read their own arguments and are to start quickly: they do without click, which costs 15 ms. One that
# returns None leaves these arguments to its click command: it is to help, or there is a mistake to explain.
DIRECT: Mapping[str, Callable[[Session, tuple[str, ...]], int | None]] = {"run": _run, "build": _build}

# A command makes much that stays and little garbage in cycles: looking for it every 700 objects, as Python does, is a
# tenth of a short command. So many objects may be cycles nobody needs: some megabytes.
_YOUNG = 20_000


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit, at once: `run` closed what has to be closed, and taking the interpreter apart takes 10 ms."""
    _have_streams()
    gc.set_threshold(_YOUNG, 5, 5)
    session = (
        Session()
    )  # held to the end: with it the last connection to the database would be closed, two syncs of a disk
    code = run(arguments, session)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or nobody reads it any more
            stream.flush()
    os._exit(code)


def run(arguments: list[str] | None = None, session: Session | None = None) -> int:
    """Run the command line; the exit code of DESIGN.md (0, 1, 2, 3, 4, 130), or the container's own for `run` and `exec`."""
    session = session or Session()
    try:
        result = _dispatch(session, sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except errors.PipeError as error:
        from pipeline.ui.errors import show_error

        show_error(error)
        return exit_code(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _broken_pipe()
    except Exception as error:  # noqa: BLE001  the last place that can say anything to the user
        if isinstance(error, OSError) and _is_of_output(error):
            return _output_is_lost(error)
        if (code := _asked_to_stop(error)) is not None:
            return code
        from pipeline.ui.errors import report_bug

        report_bug(error, session.debug)
        return 3


def _dispatch(session: Session, arguments: list[str]) -> object:
    """Call the command; what it returns is the exit code if it is a number."""
    if (result := _directly(session, arguments)) is not None:
        return result
    from pipeline.cli.root import pipe

    return pipe.main(args=arguments, prog_name="pipe", standalone_mode=False, obj=session)


def _directly(session: Session, arguments: list[str]) -> object:
    """Without click, if the command can; None when it cannot."""
    if "_PIPE_COMPLETE" in environment() or not any(word in DIRECT for word in arguments):
        return None
    try:
        given, words = read_flags(arguments)
    except errors.InvalidInput:
        return None
    if not words or words[0] not in DIRECT:
        return None
    begin(session, given)
    return DIRECT[words[0]](session, words[1:])


def _asked_to_stop(error: Exception) -> int | None:
    """The exit code of what click raises to end a command; None for anything else."""
    if "click" not in sys.modules:
        return None
    import click

    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.exceptions.Abort):
        return 130
    if isinstance(error, click.ClickException):
        error.show()
        return 2
    return None


def exit_code(error: errors.PipeError) -> int:
    """The exit code of an error's category."""
    return next((code for category, code in EXIT_CODES if isinstance(error, category)), 3)


def _have_streams() -> None:
    """A closed descriptor of the three (`pipe build >&-`) leads nowhere, lest a file of the store be opened in its place."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _is_of_output(error: OSError) -> bool:
    """Whether it is a `print` that failed: of no file, and where we write the terminal (here and in `pipeline.ui`)."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = frame.tb_frame.f_globals.get("__name__", "") if frame is not None else ""
    return error.filename is None and module.startswith(("pipeline.", "click.", "__main__"))


def _output_is_lost(error: OSError) -> int:
    """What was asked for went to a full disk; there is no more to be said there."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print(f"pipe: cannot write the output: {error.strerror}", file=sys.stderr)
    return 3


def _broken_pipe() -> int:
    """Whoever read our output has gone (`pipe ps | head`): not an error, and nothing more may be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    main()
