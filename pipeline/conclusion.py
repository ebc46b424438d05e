"""What a finished run is to the command line: an exit code, or the error of what went wrong."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.results import NodeResult
from pipeline.runner import RunResult
from pipeline.spec import InvalidPipeline
from runtime import errors
from runtime.events import Outcome

WAITING_FOR_APPROVAL = 5  # exit code
_MISTAKES = (errors.InvalidInput, errors.NotFound, errors.Unsupported)


def left_nothing(result: RunResult) -> bool:
    """Nothing but mistakes in what was written, and what was skipped because of them."""
    bad = [node for node in result.nodes.values() if node.outcome is not Outcome.SKIPPED]
    return bool(bad) and all(isinstance(node.cause, _MISTAKES) for node in bad)


def conclude(result: RunResult) -> int:
    from pipeline.deploy.deploy import WAITING
    from pipeline.ui.errors import show_error

    if result.outcome is Outcome.CANCELLED:
        raise errors.Cancelled(
            f"run {result.id} was cancelled", hint=f"`pipe resume {result.id}` goes on with it"
        )
    failures = [failure_of(node) for node in result.failures]
    if failures:
        # The one that decides the exit code comes last, where people look.
        *others, worst = sorted(failures, key=_severity)
        for error in others:
            show_error(error)
        raise worst
    return WAITING_FOR_APPROVAL if any(node.detail == WAITING for node in result.nodes.values()) else 0


def _severity(error: errors.PipeError) -> int:
    order: tuple[Callable[[], type[errors.PipeError]], ...] = (
        lambda: errors.TimedOut,
        lambda: errors.StepFailed,
        lambda: errors.InvalidInput,
        lambda: errors.HostFault,
    )
    return next((rank for rank, kind in enumerate(order) if isinstance(error, kind())), 1)


def failure_of(node: NodeResult) -> errors.PipeError:
    """What a failed node is to the command line: its own error, or a failed step with its last lines."""
    title = node.node.replace("/", " ", 1)
    cause = node.cause
    if not isinstance(cause, errors.PipeError):
        return errors.StepFailed(f"{title}: {node.error}", exit_code=node.exit_code or 1, output=node.output)
    if isinstance(cause, errors.StepFailed):
        output = cause.output or node.output
        return errors.StepFailed(
            f"{title}: {cause.message}", cause.span, hint=cause.hint, exit_code=cause.exit_code, output=output
        )
    if isinstance(cause, InvalidPipeline):
        return cause
    return type(cause)(f"{title}: {cause.message}", cause.span, hint=cause.hint)
