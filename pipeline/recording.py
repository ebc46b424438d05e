"""Write down what came of a build: `builds/<id>`, its facts in the first line, its events in the others (FEATURES B-20).

A file appears complete, by renaming, and the oldest beyond the limit go; nothing else in the store knows of them. An id sorts by time. The
command that builds pays for this after its result is there, so it imports next to nothing and syncs nothing. `builds` reads it.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from runtime.events import Changed, Finished, Outcome, Output, Progress, Started

if TYPE_CHECKING:
    from builder.request import BuildRequest, BuildResult
    from runtime.events import Event

DIRECTORY = "builds"
LIMIT = 100  # builds
OUTPUT_LIMIT = 1 << 20  # bytes of output kept of one build
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_TIME_DIGITS, _RANDOM_DIGITS = 12, 13
_REF = "default/default/"  # docker's builder and node; there is one here
# As docker says it.
_STATUS = {Outcome.DONE: "completed", Outcome.CACHED: "completed", Outcome.CANCELLED: "canceled"}


class Recording:
    """What is told of one build. `end` writes it down."""

    def __init__(self, root: str, request: BuildRequest) -> None:
        self._directory = os.path.join(root, DIRECTORY)
        self._request = request
        self._own = f"{request.node}/"
        self._events: list[Event] = []
        self._size = 0
        self.id = new_id(time.time_ns())

    def note(self, event: Event) -> None:
        """Keep what is this build's."""
        if isinstance(event, (Progress, Changed)):
            return
        if event.node != self._request.node and not event.node.startswith((self._own, "pull/", "push/")):
            return
        if isinstance(event, Output):
            self._size += len(event.data)
            if self._size > OUTPUT_LIMIT:
                return
        self._events.append(event)

    def end(self, result: BuildResult | None, outcome: Outcome, error: str = "") -> str:
        """Write the record; the ref that docker's tools would know it by, "" when it could not be written."""
        record = self._facts(result, outcome, error)
        lines = [json.dumps(record, ensure_ascii=False), *map(_line, self._events)]
        try:
            _write(self._directory, self.id, _public("\n".join(lines) + "\n"))
        except OSError:
            return ""  # a full disk must not make a build that is done one that failed
        return ref_of(self.id)

    def _facts(self, result: BuildResult | None, outcome: Outcome, error: str) -> dict[str, Any]:
        request = self._request
        steps = [
            each for each in self._events if isinstance(each, Finished) and each.node.startswith(self._own)
        ]
        times = [each.time for each in self._events] or [time.time()]
        return {
            "name": name_of(request),
            "context": request.context,
            "dockerfile": request.dockerfile or "",
            "target": request.target,
            "platforms": [str(each) for each in request.platforms],
            "tags": list(request.tags),
            "build_args": dict(request.build_args),
            "labels": dict(request.labels),
            "no_cache": request.no_cache,
            "started": times[0],
            "ended": times[-1],
            "status": _STATUS.get(outcome, "failed"),
            "error": error,
            "total": sum(
                isinstance(each, Started) and each.node.startswith(self._own) for each in self._events
            ),
            "completed": sum(step.outcome in (Outcome.DONE, Outcome.CACHED) for step in steps),
            "cached": sum(step.outcome is Outcome.CACHED for step in steps),
            "left_out": max(0, self._size - OUTPUT_LIMIT),
            "images": list(result.images or (result.image_id,)) if result else [],
            "outputs": [[each.type, each.dest, each.digest] for each in result.outputs] if result else [],
            "warnings": len(result.warnings) if result else 0,
        }


def ref_of(build: str) -> str:
    """As docker's tools know it: with a builder and its node before it."""
    return _REF + build


def name_of(request: BuildRequest) -> str:
    """What buildx calls a build: BUILDKIT_BUILD_NAME, or the directory, the Dockerfile if it is not just that, and the target."""
    if named := request.build_args.get("BUILDKIT_BUILD_NAME"):
        return named
    context = request.context
    if "://" in context or context.startswith("git@"):
        found = _public(context)
    else:
        found = _short_path("" if context == "-" else os.path.abspath(context), request.dockerfile or "")
    if not request.target:
        return found
    return f"{found} ({request.target})" if found else request.target


def _short_path(directory: str, dockerfile: str) -> str:
    path = "" if dockerfile in ("", "-") else os.path.abspath(dockerfile)
    plain = not path or os.path.basename(path) == "Dockerfile"
    place = os.path.dirname(path) if path and plain else path
    if place.startswith(directory) and len(place) > len(directory) > 0:
        return place[directory.rfind("/") + 1 :]
    place = place or directory
    parts = place.strip("/").split("/")
    return "/".join(parts[-1:] if plain else parts[-2:])


def _public(text: str) -> str:
    """URLs in it without who may read them."""
    if "@" not in text:
        return text
    import re

    return re.sub(r"(?<=://)[^/@\s\"]+@", "", text)


def new_id(now_ns: int) -> str:
    """25 letters and digits, as long as docker's."""
    return _based(now_ns, _TIME_DIGITS) + _based(int.from_bytes(os.urandom(9), "big"), _RANDOM_DIGITS)


def _based(number: int, length: int) -> str:
    found = ""
    for _ in range(length):
        number, digit = divmod(number, 36)
        found = _DIGITS[digit] + found
    return found


def _line(event: Event) -> str:
    from pipeline.event_log import event_to_json

    return json.dumps(event_to_json(event), ensure_ascii=False)


def _write(directory: str, name: str, text: str) -> None:
    hidden = os.path.join(directory, f".{name}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(hidden, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(directory, 0o700, exist_ok=True)
        descriptor = os.open(hidden, flags, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.rename(hidden, os.path.join(directory, name))
    _drop_old(directory)


def _drop_old(directory: str) -> None:
    """Those beyond the limit, and what was left half written an hour ago."""
    names = sorted(os.listdir(directory))
    hidden = [name for name in names if name.startswith(".")]
    for name in names[len(hidden) : -LIMIT]:
        _remove(os.path.join(directory, name))
    for name in hidden:
        path = os.path.join(directory, name)
        try:
            if os.stat(path).st_mtime < time.time() - 3600:
                _remove(path)
        except FileNotFoundError:
            pass


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
