"""Docker's own description of the Engine API as a judge: `conforms("SystemInfo", record)`.

`python -m tests.support.engine_schema swagger.yaml` makes tests/data/engine-api/schemas.json: the definitions and the
answers with status 200 or 201 as JSON Schema, without prose. Source: moby/moby api/swagger.yaml at b985e2313a (API 1.56),
Apache-2.0.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

PLACE = Path(__file__).resolve().parents[1] / "data/engine-api/schemas.json"
_PROSE = ("description", "summary", "example", "examples", "title", "externalDocs", "default")


def conforms(name: str, record: Any) -> None:
    """Raise unless `record` is a `name`: a definition, or an operation's answer as `GET /images/json`."""
    schemas = _schemas()
    found = schemas["definitions"].get(name) or schemas["answers"][name]
    jsonschema.validate(record, {**found, "definitions": schemas["definitions"]})


@cache
def _schemas() -> Any:
    return json.loads(PLACE.read_text())


def _extract(swagger: Any) -> Any:
    answers = {}
    for path, methods in swagger["paths"].items():
        for method, operation in methods.items():
            for status in (200, 201):
                schema = operation.get("responses", {}).get(status, {}).get("schema")
                if schema:
                    answers[f"{method.upper()} {path}"] = _plain(schema)
    return {
        "definitions": {name: _plain(each) for name, each in swagger["definitions"].items()},
        "answers": answers,
    }


def _plain(node: Any, names: bool = False) -> Any:
    """JSON Schema of a swagger schema; Go sends null for an empty list, map or pointer."""
    if isinstance(node, list):
        return [_plain(each) for each in node]
    if not isinstance(node, dict):
        return node
    kept = {
        key: _plain(value, key in ("properties", "definitions"))
        for key, value in node.items()
        if names or not (key in _PROSE or key.startswith("x-") or key == "format")
    }
    nullable = node.get("x-nullable") or kept.get("type") in ("object", "array")
    if not names and isinstance(kept.get("type"), str) and nullable:
        kept["type"] = [kept["type"], "null"]
    return kept


if __name__ == "__main__":
    import yaml

    PLACE.parent.mkdir(parents=True, exist_ok=True)
    PLACE.write_text(
        json.dumps(
            _extract(yaml.safe_load(Path(sys.argv[1]).read_text())), sort_keys=True, separators=(",", ":")
        )
        + "\n"
    )
