"""The functions of bake files: those of buildx's standard library (docs/bake-stdlib.md there), by name.

They check what they are given by `as_text` and its like; whatever else Python finds wrong is told with the function's name.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import itertools
import json
import math
import os
import posixpath
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote_plus

from pipeline.bake.hcl import addresses, dates, formats
from pipeline.bake.hcl.evaluate import (
    as_list,
    as_number,
    as_object,
    as_text,
    as_truth,
    divided,
    kind_of,
    plain,
    remainder,
    same,
)
from pipeline.bake.hcl.types import as_set
from runtime.errors import InvalidInput, Unsupported

# --- text ---------------------------------------------------------------------------------------------------------


def chomp(text: Any) -> str:
    return as_text(text).rstrip("\r\n")


def indent(spaces: Any, text: Any) -> str:
    return as_text(text).replace("\n", "\n" + " " * int(as_number(spaces)))


def join(separator: Any, *lists: Any) -> str:
    items = [item for each in lists for item in as_list(each)]
    return as_text(separator).join(map(as_text, items))


def split(separator: Any, text: Any) -> list[str]:
    by, whole = as_text(separator), as_text(text)
    return whole.split(by) if by else list(whole)


def replace(text: Any, old: Any, new: Any) -> str:
    return as_text(text).replace(as_text(old), as_text(new))


def substr(text: Any, offset: Any, length: Any) -> str:
    """A negative offset counts from the end, a length of -1 takes the rest."""
    letters, start, count = as_text(text), int(as_number(offset)), int(as_number(length))
    start = max(0, len(letters) + start) if start < 0 else start
    return letters[start:] if count < 0 else letters[start : start + count]


def title(text: Any) -> str:
    return re.sub(r"(?<!\w)\w", lambda found: found[0].upper(), as_text(text))


def trim(text: Any, letters: Any) -> str:
    return as_text(text).strip(as_text(letters))


def sanitize(text: Any) -> str:
    return re.sub("[^a-zA-Z0-9_-]", "_", as_text(text))


def basename(path: Any) -> str:
    """As Go's path.Base."""
    text = as_text(path)
    stripped = text.rstrip("/")
    return posixpath.basename(stripped) if stripped else "/" if text else "."


def dirname(path: Any) -> str:
    """As Go's path.Dir."""
    directory = posixpath.normpath(
        as_text(path).rpartition("/")[0] or ("/" if as_text(path).startswith("/") else ".")
    )
    return directory.replace("//", "/", 1) if directory.startswith("//") else directory


def urlencode(text: Any) -> str:
    return quote_plus(as_text(text))


def base64decode(text: Any) -> str:
    return base64.b64decode(as_text(text), validate=True).decode()


# --- patterns -----------------------------------------------------------------------------------------------------


def _compiled(pattern: Any) -> re.Pattern[str]:
    try:
        return re.compile(as_text(pattern))
    except re.error as error:
        raise InvalidInput(f"{pattern!r} is no pattern: {error}") from error


def _groups(found: re.Match[str]) -> Any:
    """The whole, or its groups: by name if they have names."""
    if found.re.groupindex:
        return found.groupdict()
    return list(found.groups()) if found.re.groups else found[0]


def regex(pattern: Any, text: Any) -> Any:
    found = _compiled(pattern).search(as_text(text))
    if found is None:
        raise InvalidInput("the pattern does not match")
    return _groups(found)


def regexall(pattern: Any, text: Any) -> list[Any]:
    return [_groups(found) for found in _compiled(pattern).finditer(as_text(text))]


def regex_replace(text: Any, pattern: Any, replacement: Any) -> str:
    """`$1` and `${name}` in the replacement are groups, `$$` is a dollar sign."""

    def expanded(found: re.Match[str]) -> str:
        def group(name: re.Match[str]) -> str:
            if name[0] == "$$":
                return "$"
            key = name[1] or name[2]
            try:
                return found[int(key) if key.isdigit() else key] or ""
            except IndexError:
                return ""

        return re.sub(r"\$\$|\$(\w+)|\$\{(\w+)\}", group, as_text(replacement))

    return _compiled(pattern).sub(expanded, as_text(text))


# --- numbers ------------------------------------------------------------------------------------------------------


def log(number: Any, base: Any) -> int | float:
    return plain(math.log(as_number(number), as_number(base)))


def parseint(text: Any, base: Any) -> int:
    return int(as_text(text), int(as_number(base)))


def power(number: Any, exponent: Any) -> int | float:
    """Whole numbers stay exact up to a length that is a number still."""
    base, times = as_number(number), as_number(exponent)
    if abs(times) > 1024:
        base = float(base)
    return plain(base**times)


def signum(number: Any) -> int:
    value = as_number(number)
    return (value > 0) - (value < 0)


def extreme(choose: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *numbers: choose(map(as_number, numbers))


def number_range(*bounds: Any) -> list[int | float]:
    """`range(limit)`, `range(start, limit)`, `range(start, limit, step)`."""
    first, *more = map(as_number, bounds)
    start, limit = (first, more[0]) if more else (0, first)
    step = more[1] if len(more) > 1 else 1 if start <= limit else -1
    if step == 0 or (step > 0) != (limit >= start):
        raise InvalidInput("the step does not lead to the limit")
    count = math.ceil((limit - start) / step)
    if count > 1024:
        raise InvalidInput("more than 1024 numbers")
    return [plain(start + number * step) for number in range(count)]


# --- lists, sets, objects -----------------------------------------------------------------------------------------


def chunklist(items: Any, size: Any) -> list[list[Any]]:
    whole, step = as_list(items), int(as_number(size))
    return [whole[at : at + step] for at in range(0, len(whole), step)] if step else [whole]


def coalesce(*values: Any) -> Any:
    found = next((value for value in values if value is not None), None)
    if found is None:
        raise InvalidInput("all of it is null")
    return found


def coalescelist(*lists: Any) -> list[Any]:
    found = next((each for each in map(as_list, lists) if each), None)
    if found is None:
        raise InvalidInput("all lists are empty")
    return found


def compact(items: Any) -> list[str]:
    return [as_text(item) for item in as_list(items) if item not in (None, "")]


def concat(*lists: Any) -> list[Any]:
    return [item for each in lists for item in as_list(each)]


def contains(items: Any, value: Any) -> bool:
    return any(same(item, value) for item in as_list(items))


def distinct(items: Any) -> list[Any]:
    found: list[Any] = []
    for item in as_list(items):
        if not contains(found, item):
            found.append(item)
    return found


def element(items: Any, index: Any) -> Any:
    whole = as_list(items)
    return whole[int(as_number(index)) % len(whole)]


def flatten(items: Any) -> list[Any]:
    return [
        inner for item in as_list(items) for inner in (flatten(item) if isinstance(item, list) else [item])
    ]


def hasindex(of: Any, key: Any) -> bool:
    if isinstance(of, Mapping):
        return isinstance(key, str) and key in of
    return isinstance(key, int) and not isinstance(key, bool) and 0 <= key < len(as_list(of))


def index(of: Any, key: Any) -> Any:
    if not hasindex(of, key):
        raise InvalidInput(f"there is no {key!r}")
    return of[key]


def indexof(items: Any, value: Any) -> int:
    found = next((number for number, item in enumerate(as_list(items)) if same(item, value)), None)
    if found is None:
        raise InvalidInput("item not found")
    return found


def keys(of: Any) -> list[str]:
    return sorted(as_object(of))


def values(of: Any) -> list[Any]:
    record = as_object(of)
    return [record[key] for key in sorted(record)]


def length(of: Any) -> int:
    if not isinstance(of, (list, Mapping)):
        raise InvalidInput(f"want a list or an object, not {kind_of(of)}")
    return len(of)


def lookup(of: Any, key: Any, *default: Any) -> Any:
    record = as_object(of)
    return record[key] if key in record or not default else default[0]


def merge(*records: Any) -> dict[str, Any]:
    return {key: value for each in records if each is not None for key, value in as_object(each).items()}


def items_slice(items: Any, start: Any, end: Any) -> list[Any]:
    whole, first, last = as_list(items), int(as_number(start)), int(as_number(end))
    if not 0 <= first <= last <= len(whole):
        raise InvalidInput(f"{first} to {last} is not within {len(whole)} items")
    return whole[first:last]


def setproduct(*sets: Any) -> list[list[Any]]:
    return [list(row) for row in itertools.product(*map(as_list, sets))]


def setunion(*sets: Any) -> list[Any]:
    return as_set(concat(*sets))


def setintersection(first: Any, *sets: Any) -> list[Any]:
    return as_set([item for item in as_list(first) if all(contains(each, item) for each in sets)])


def setsubtract(first: Any, then: Any) -> list[Any]:
    return as_set([item for item in as_list(first) if not contains(then, item)])


def setsymmetricdifference(first: Any, *sets: Any) -> list[Any]:
    found = as_set(as_list(first))
    for each in sets:
        found = setunion(setsubtract(found, each), setsubtract(each, found))
    return found


def sort(items: Any) -> list[str]:
    return sorted(map(as_text, as_list(items)))


def reverse(text: Any) -> str:
    return as_text(text)[::-1]


def zipmap(names: Any, items: Any) -> dict[str, Any]:
    return dict(zip(map(as_text, as_list(names)), as_list(items), strict=True))


# --- documents, digests -------------------------------------------------------------------------------------------


def csvdecode(text: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_text(text)), strict=True))


def jsonencode(value: Any) -> str:
    """As Go writes it: keys in order, and what HTML would read escaped."""
    text = json.dumps(_rounded(value), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    for letter, escaped in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")):
        text = text.replace(letter, escaped)
    return text


def _rounded(value: Any) -> Any:
    """0.1 + 0.2 is 0.3."""
    if isinstance(value, float):
        return float(as_text(value))
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return {key: _rounded(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def jsondecode(text: Any) -> Any:
    return json.loads(as_text(text), parse_float=lambda number: plain(float(number)))


def digest(kind: str) -> Callable[[Any], str]:
    return lambda text: hashlib.new(kind, as_text(text).encode()).hexdigest()


def bcrypt(text: Any, *cost: Any) -> str:
    import bcrypt as library

    rounds = int(as_number(cost[0])) if cost else 10
    return library.hashpw(as_text(text).encode(), library.gensalt(rounds, b"2a")).decode()


def uuidv5(namespace: Any, name: Any) -> str:
    spaces = {
        "dns": uuid.NAMESPACE_DNS,
        "url": uuid.NAMESPACE_URL,
        "oid": uuid.NAMESPACE_OID,
        "x500": uuid.NAMESPACE_X500,
    }
    space = as_text(namespace)
    return str(uuid.uuid5(spaces.get(space) or uuid.UUID(space), as_text(name)))


def semvercmp(version: Any, constraint: Any) -> bool:
    from pipeline.bake.hcl.versions import fits

    return fits(as_text(version), as_text(constraint))


def refused(name: str) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        raise Unsupported("is not there", hint="write out what it gives")

    return call


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "absolute": lambda number: abs(as_number(number)),
    "add": lambda a, b: plain(as_number(a) + as_number(b)),
    "and": lambda a, b: as_truth(a) and as_truth(b),
    "base64decode": base64decode,
    "base64encode": lambda text: base64.b64encode(as_text(text).encode()).decode(),
    "basename": basename,
    "bcrypt": bcrypt,
    "byteslen": refused("byteslen"),
    "bytesslice": refused("bytesslice"),
    "ceil": lambda number: math.ceil(as_number(number)),
    "chomp": chomp,
    "chunklist": chunklist,
    "cidrhost": addresses.host,
    "cidrnetmask": addresses.netmask,
    "cidrsubnet": addresses.subnet,
    "cidrsubnets": addresses.subnets,
    "coalesce": coalesce,
    "coalescelist": coalescelist,
    "compact": compact,
    "concat": concat,
    "contains": contains,
    "csvdecode": csvdecode,
    "dirname": dirname,
    "distinct": distinct,
    "divide": divided,
    "element": element,
    "equal": same,
    "flatten": flatten,
    "floor": lambda number: math.floor(as_number(number)),
    "format": formats.formatted,
    "formatdate": dates.formatdate,
    "formatlist": formats.formatlist,
    "formattimestamp": dates.formatdate,
    "greaterthan": lambda a, b: as_number(a) > as_number(b),
    "greaterthanorequalto": lambda a, b: as_number(a) >= as_number(b),
    "hasindex": hasindex,
    "homedir": lambda: os.path.expanduser("~"),
    "indent": indent,
    "index": index,
    "indexof": indexof,
    "int": lambda number: int(as_number(number)),
    "join": join,
    "jsondecode": jsondecode,
    "jsonencode": jsonencode,
    "keys": keys,
    "length": length,
    "lessthan": lambda a, b: as_number(a) < as_number(b),
    "lessthanorequalto": lambda a, b: as_number(a) <= as_number(b),
    "log": log,
    "lookup": lookup,
    "lower": lambda text: as_text(text).lower(),
    "max": extreme(max),
    "md5": digest("md5"),
    "merge": merge,
    "min": extreme(min),
    "modulo": remainder,
    "multiply": lambda a, b: plain(as_number(a) * as_number(b)),
    "negate": lambda number: -as_number(number),
    "not": lambda truth: not as_truth(truth),
    "notequal": lambda a, b: not same(a, b),
    "or": lambda a, b: as_truth(a) or as_truth(b),
    "parseint": parseint,
    "pow": power,
    "range": number_range,
    "regex": regex,
    "regex_replace": regex_replace,
    "regexall": regexall,
    "replace": replace,
    "reverse": reverse,
    "reverselist": lambda items: as_list(items)[::-1],
    "rsadecrypt": refused("rsadecrypt"),
    "sanitize": sanitize,
    "semvercmp": semvercmp,
    "sethaselement": contains,
    "setintersection": setintersection,
    "setproduct": setproduct,
    "setsubtract": setsubtract,
    "setsymmetricdifference": setsymmetricdifference,
    "setunion": setunion,
    "sha1": digest("sha1"),
    "sha256": digest("sha256"),
    "sha512": digest("sha512"),
    "signum": signum,
    "slice": items_slice,
    "sort": sort,
    "split": split,
    "strlen": lambda text: len(as_text(text)),
    "substr": substr,
    "subtract": lambda a, b: plain(as_number(a) - as_number(b)),
    "timeadd": dates.timeadd,
    "timestamp": lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    "title": title,
    "trim": trim,
    "trimprefix": lambda text, start: as_text(text).removeprefix(as_text(start)),
    "trimspace": lambda text: as_text(text).strip(),
    "trimsuffix": lambda text, end: as_text(text).removesuffix(as_text(end)),
    "unixtimestampparse": dates.unixtimestampparse,
    "upper": lambda text: as_text(text).upper(),
    "urlencode": urlencode,
    "uuidv4": lambda: str(uuid.uuid4()),
    "uuidv5": uuidv5,
    "values": values,
    "zipmap": zipmap,
}
