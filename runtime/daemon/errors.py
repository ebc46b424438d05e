"""Our errors as Docker's API tells them: one table from category to status, and one body."""

from __future__ import annotations

from runtime import errors
from runtime.http.messages import HttpError, Request, Response, json_response

STATUSES: tuple[tuple[type[errors.PipeError], int], ...] = (
    (errors.InvalidInput, 400),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.Denied, 403),
    (errors.Unsupported, 501),
    (errors.Unavailable, 503),
    (errors.TimedOut, 504),
    (errors.StepFailed, 500),
    (errors.Cancelled, 500),
    (errors.HostFault, 500),
)


def status_of(error: errors.PipeError) -> int:
    return next((status for category, status in STATUSES if isinstance(error, category)), 500)


def text_of(error: errors.PipeError) -> str:
    """What a client shows: the hint has no place of its own there."""
    return f"{error} ({error.hint})" if error.hint else str(error)


def as_http(error: errors.PipeError) -> HttpError:
    return HttpError(status_of(error), text_of(error))


def error_response(request: Request, error: HttpError) -> Response:
    """The one body of all errors."""
    return json_response({"message": str(error)}, error.status, error.headers)
