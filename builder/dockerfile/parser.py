"""`parse_dockerfile`: text to stages. Pure; the errors are those of the first mistake, in the order of the file."""

from __future__ import annotations

from builder.dockerfile.ast import Arg, Command, Dockerfile, From, Stage
from builder.dockerfile.errors import DockerfileError
from builder.dockerfile.instructions import parse_instruction
from builder.dockerfile.reader import Reading, read_nodes
from runtime.spans import Span


def parse_dockerfile(text: str | bytes, name: str = "Dockerfile") -> Dockerfile:
    """The typed Dockerfile; `name` is what errors call the file."""
    return assemble(read_nodes(text, name))


def assemble(reading: Reading) -> Dockerfile:
    """Type every node and sort them into stages."""
    arguments: list[Arg] = []
    starts: list[From] = []
    commands: list[list[Command]] = []
    for node in reading.nodes:
        instruction = parse_instruction(node)
        if isinstance(instruction, From):
            starts.append(instruction)
            commands.append([])
        elif starts:
            commands[-1].append(instruction)
        elif isinstance(instruction, Arg):
            arguments.append(instruction)
        else:
            raise node.error(
                "no build stage in current context", hint="only ARG may stand before the first FROM"
            )
    if not starts:
        raise DockerfileError(
            "dockerfile contains no stages to build", Span(reading.source, 1), hint="write a FROM instruction"
        )
    stages = tuple(
        Stage(number, start, tuple(own)) for number, (start, own) in enumerate(zip(starts, commands))
    )
    return Dockerfile(
        reading.source, reading.directives, tuple(arguments), stages, reading.empty_continuations
    )
