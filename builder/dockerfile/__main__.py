"""`python -m builder.dockerfile FILE…`: one line of JSON per file, in the form of BuildKit's own parser dump.

For tests and for comparison with other parsers; nothing else uses it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from builder.dockerfile.errors import DockerfileError
from builder.dockerfile.nodes import Heredoc, Node
from builder.dockerfile.parser import assemble
from builder.dockerfile.reader import read_nodes


def describe(name: str, text: bytes) -> dict[str, Any]:
    """What the parser makes of one file; mistakes are part of the answer."""
    record: dict[str, Any] = {"file": name}
    try:
        reading = read_nodes(text, name)
    except DockerfileError as error:
        return {**record, "error": error.message, "line": error.span.line if error.span else 0}
    record["ast"] = [describe_node(node) for node in reading.nodes]
    record["escape"] = reading.directives.escape
    record["warnings"] = [str(span) for span in reading.empty_continuations] or None
    try:
        dockerfile = assemble(reading)
    except DockerfileError as error:
        return {**record, "instr_error": error.message, "line": error.span.line if error.span else 0}
    record["meta_args"] = len(dockerfile.arguments)
    record["stages"] = [
        {
            "base": stage.base,
            "cmds": [command.node.name for command in stage.commands] or None,
            "name": stage.name,
            "platform": stage.platform,
        }
        for stage in dockerfile.stages
    ]
    return record


def describe_node(node: Node) -> dict[str, Any]:
    """Empty fields are left out, as in the dump."""
    record: dict[str, Any] = {
        "value": node.keyword,
        "original": node.original,
        "start": node.span.line,
        "end": node.span.last_line,
    }
    if node.args:
        record["args"] = list(node.args)
    if node.flags:
        record["flags"] = list(node.flags)
    if node.json:
        record["attrs"] = {"json": True}
    if node.heredocs:
        record["heredocs"] = [_describe_heredoc(heredoc) for heredoc in node.heredocs]
    return record


def _describe_heredoc(heredoc: Heredoc) -> dict[str, Any]:
    return {
        "Name": heredoc.name,
        "FileDescriptor": heredoc.descriptor,
        "Expand": heredoc.expand,
        "Chomp": heredoc.chomp,
        "Content": heredoc.content,
    }


def main(paths: list[str]) -> int:
    for path in paths:
        sys.stdout.write(
            json.dumps(describe(Path(path).name, Path(path).read_bytes()), sort_keys=True) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
