"""Functions of times, which are RFC 3339 text."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.bake.hcl.evaluate import as_number, as_text
from runtime.errors import InvalidInput

_TOKEN = re.compile(r"'((?:[^']|'')*)'|([a-zA-Z])\2*|.", re.DOTALL)
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def _parsed(text: Any) -> datetime:
    written = as_text(text)
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", written):
        raise InvalidInput(f"{written!r} is no RFC 3339 time")
    return datetime.fromisoformat(written.replace("Z", "+00:00"))


def formatdate(form: Any, time: Any) -> str:
    """`YYYY-MM-DD'T'hh:mm:ssZ`: letters of one kind in a row are a part of the time."""
    moment = _parsed(time)
    return "".join(_part(found, moment) for found in _TOKEN.finditer(as_text(form)))


def _part(found: re.Match[str], moment: datetime) -> str:
    token = found[0]
    if found[1] is not None:
        return found[1].replace("''", "'")
    if not token[0].isalpha():
        return token
    hour = moment.hour % 12 or 12
    parts = {
        "YYYY": f"{moment.year:04}", "YY": f"{moment.year % 100:02}",
        "MMMM": _MONTHS[moment.month - 1], "MMM": _MONTHS[moment.month - 1][:3], "MM": f"{moment.month:02}", "M": str(moment.month),
        "DD": f"{moment.day:02}", "D": str(moment.day), "EEEE": _DAYS[moment.weekday()], "EEE": _DAYS[moment.weekday()][:3],
        "hh": f"{moment.hour:02}", "h": str(moment.hour), "HH": f"{hour:02}", "H": str(hour),
        "AA": "AM" if moment.hour < 12 else "PM", "aa": "am" if moment.hour < 12 else "pm",
        "mm": f"{moment.minute:02}", "m": str(moment.minute), "ss": f"{moment.second:02}", "s": str(moment.second),
        **_zones(moment),
    }  # fmt: skip
    if token not in parts:
        raise InvalidInput(f"{token!r} is no part of a time", hint="put text in '…'")
    return parts[token]


def _zones(moment: datetime) -> dict[str, str]:
    text = moment.strftime("%z")[:5]
    colon = f"{text[:3]}:{text[3:]}"
    is_utc = text == "+0000"
    return {
        "ZZZZZ": colon,
        "ZZZZ": text,
        "ZZZ": "UTC" if is_utc else text,
        "Z": "Z" if is_utc else colon,
    }


def timeadd(time: Any, duration: Any) -> str:
    written = as_text(duration)
    pieces = re.findall(r"(\d+(?:\.\d+)?|\.\d+)(ns|us|µs|ms|s|m|h)", written)
    if not pieces or "".join(map("".join, pieces)) != written.lstrip("+-"):
        raise InvalidInput(f"{written!r} is no duration", hint="for example 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in pieces)
    moment = _parsed(time) + timedelta(seconds=-seconds if written.startswith("-") else seconds)
    text = moment.replace(microsecond=0).isoformat()
    return text.replace("+00:00", "Z")


def unixtimestampparse(seconds: Any) -> dict[str, Any]:
    number = int(as_number(seconds))
    moment = datetime.fromtimestamp(number, UTC)
    year, week, _ = moment.isocalendar()
    return {
        "year": moment.year,
        "year_day": moment.timetuple().tm_yday,
        "day": moment.day,
        "month": moment.month,
        "month_name": _MONTHS[moment.month - 1],
        "weekday": moment.isoweekday() % 7,
        "weekday_name": _DAYS[moment.weekday()],
        "hour": moment.hour,
        "minute": moment.minute,
        "second": moment.second,
        "rfc3339": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "iso_year": year,
        "iso_week": week,
    }
