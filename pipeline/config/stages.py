"""The table of a stage: script, matrix, retries, reports, artifacts, and all of Compose's container keys."""

from __future__ import annotations

import re
from typing import Any

from pipeline.config.conditions import CONDITION, GLOBS, Needs, with_condition
from pipeline.config.container import ContainerKeys
from pipeline.config.container_keys import CONTAINER, STAGE_SERVICES
from pipeline.config.document import Mapping, Node, Scalar, Sequence, kind_of
from pipeline.config.interpolate import script_variables
from pipeline.config.scalars import Choice, Duration, Flag, Integer, Text, scalar
from pipeline.config.shapes import Convert, Either, Json, Key, ListOf, Reader, Record, Shape
from pipeline.config.uses import SecretUses
from pipeline.config.words import Command, Environment, Pairs
from pipeline.spec import (
    AllowFailure,
    ArtifactSpec,
    MatrixSpec,
    RetrySpec,
    Script,
    ScriptPart,
    StageSpec,
)
from runtime.errors import InvalidInput
from runtime.spans import Span


class Scripts(Shape[Script]):
    """Shell text: one text, or a list of them run one after the other in one shell."""

    def parse(self, node: Node, reader: Reader) -> Script:
        items = node.items if isinstance(node, Sequence) else (node,)
        parts: list[ScriptPart] = []
        contexts: dict[str, None] = {}
        for item in items:
            hint = (
                'quote a command that contains `: `, as in `- "echo a: b"`'
                if isinstance(item, Mapping)
                else ""
            )
            text = scalar(item, self, hint)
            script, used = script_variables(text.text, item.span, reader.lookup)
            if "\0" in script:
                raise InvalidInput("a NUL character in a script", item.span)
            parts.append(ScriptPart(script, item.span, text.style == "|"))
            contexts.update(dict.fromkeys(used))
        return Script(tuple(part for part in parts if part.text.strip()), tuple(contexts))

    def schema(self) -> Json:
        return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}

    def expects(self) -> str:
        return "shell text"


_MATRIX_WORDS = ("include", "exclude", "max_parallel", "fail_fast")


class Matrix(Shape[MatrixSpec]):
    """Axes are any keys; `include`, `exclude`, `max_parallel`, `fail_fast` are ours."""

    def parse(self, node: Node, reader: Reader) -> MatrixSpec:
        if not isinstance(node, Mapping):
            raise InvalidInput(
                f"expected a mapping of axes, not {kind_of(node)}",
                node.span,
                hint='`matrix: {python: ["3.11"]}`',
            )
        axes: list[tuple[str, tuple[str, ...]]] = []
        for entry in node:
            if entry.key in _MATRIX_WORDS or entry.key.startswith("x-"):
                continue
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", entry.key):
                raise InvalidInput(
                    f"{entry.key!r} is not a name for an axis", entry.key_span, hint="letters, digits and `_`"
                )
            values = ListOf(Text(later=False)).parse(entry.value, reader)
            if not values:
                raise InvalidInput(f"axis `{entry.key}` has no values", entry.value.span)
            axes.append((entry.key, values))
        return self._words(node, reader, tuple(axes))

    def _words(
        self, node: Mapping, reader: Reader, axes: tuple[tuple[str, tuple[str, ...]], ...]
    ) -> MatrixSpec:
        def given(key: str, shape: Shape[Any], default: Any) -> Any:
            value = node.get(key)
            return default if value is None else shape.parse(value, reader)

        spec = MatrixSpec(
            axes=axes,
            include=given("include", ListOf(Pairs()), ()),
            exclude=given("exclude", ListOf(Pairs()), ()),
            max_parallel=given("max_parallel", Integer(1), 0),
            fail_fast=given("fail_fast", Flag(), False),
            span=node.span,
        )
        known = {axis for axis, _ in axes}
        for combination in spec.exclude:
            for key, _ in combination:
                if key not in known:
                    raise InvalidInput(f"`exclude` names the unknown axis `{key}`", node.span)
        if not axes and not spec.include:
            raise InvalidInput("an empty matrix", node.span, hint="give it an axis or an `include`")
        return spec

    def schema(self) -> Json:
        rows = {"type": "array", "items": {"type": "object"}}
        return {
            "type": "object",
            "properties": {
                "include": rows,
                "exclude": rows,
                "max_parallel": {"type": "integer", "minimum": 1},
                "fail_fast": {"type": "boolean"},
            },
            "additionalProperties": {"type": "array", "items": Text().schema()},
        }


RETRY_REASONS = ("failed", "error", "timeout")
_RETRY: Shape[RetrySpec] = Either(
    Convert(Integer(0, 10), lambda number: RetrySpec(max=number)),
    Record(
        RetrySpec,
        {
            "max": Key(Integer(0, 10), "how many times again", required=True),
            "when": Key(ListOf(Choice(RETRY_REASONS), single=True), "only after these outcomes"),
            "exit_codes": Key(ListOf(Integer(1, 255), single=True), "only after these exit codes"),
            "backoff": Key(Duration(), "wait before the next attempt; doubles"),
        },
        what="`retry`",
    ),
)
_ALLOW: Shape[AllowFailure] = Either(
    Convert(Flag(), lambda flag: AllowFailure(allowed=flag)),
    Record(
        lambda **given: AllowFailure(allowed=True, **given),
        {
            "exit_codes": Key(
                ListOf(Integer(1, 255), single=True), "only these exit codes are allowed", required=True
            )
        },
        what="`allow_failure`",
    ),
)
_PATHS = ListOf(Text(r"/.*", "an absolute path in the container"), single=True)
_ARTIFACTS: Shape[ArtifactSpec] = Either(
    Convert(_PATHS, lambda paths: ArtifactSpec(paths=paths)),
    Record(
        ArtifactSpec,
        {
            "paths": Key(_PATHS, "globs of absolute paths", required=True),
            "exclude": Key(GLOBS, "globs not to keep"),
            "when": Key(Choice(("on_success", "on_failure", "always")), "when they are kept"),
        },
        what="`artifacts`",
    ),
)
_REPORTS = Record(
    lambda *, junit=(): junit, {"junit": Key(_PATHS, "globs of JUnit XML files")}, what="`reports`"
)


def _checkout_flag(flag: bool) -> str:
    return "/src" if flag else ""


class Checkout(Shape[str]):
    """true (mounted at /src) or a path."""

    def parse(self, node: Node, reader: Reader) -> str:
        if isinstance(node, Scalar) and node.plain and node.text in ("true", "false"):
            return _checkout_flag(Flag().parse(node, reader))
        return Text(r"/.+", "true, false or an absolute path", later=False).parse(node, reader)

    def schema(self) -> Json:
        return {"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": "^/"}]}


_STAGE_KEYS = {
    "run": Key(Scripts(), "the script; without it the image's own command runs"),
    "before": Key(Scripts(), "shell text before `run`, in the same shell"),
    "after": Key(Scripts(), "shell text after it, whatever came of it; not after a cancel"),
    "shell": Key(Command(), "the shell, /bin/sh by default"),
    "needs": Key(Needs(), "stages that must be green first"),
    "matrix": Key(Matrix(), "run it once for each combination"),
    "services": Key(STAGE_SERVICES, "containers it talks to, by their names"),
    "secrets": Key(SecretUses(), "secrets, as files in /run/secrets or in variables"),
    "reports": Key(_REPORTS, "reports to read", "junit"),
    "artifacts": Key(_ARTIFACTS, "files to keep"),
    "retry": Key(_RETRY, "try again"),
    "timeout": Key(Duration(), "time for one attempt"),
    "allow_failure": Key(_ALLOW, "a failure is a warning"),
    "cache": Key(Flag(), "false: run it though nothing changed"),
    "checkout": Key(Checkout(), "mount the work tree, copy-on-write"),
    "extends": Key(Text(later=False), "another stage this one is like", "_extends"),
    **CONDITION,
    **{
        name: Key(key.shape, key.help, key.attribute or name, part="container")
        for name, key in CONTAINER.items()
    },
    "env": Key(Environment(), "short for `environment`", "env", part="container"),
}


def stage_shape(name: str, span: Span) -> Shape[StageSpec]:
    def build(*, _extends: str = "", **given: Any) -> StageSpec:
        return StageSpec(**with_condition(given))

    def check(stage: StageSpec, node: Mapping, reader: Reader) -> None:
        if not stage.container.image:
            hint = "name an entry of `images:` or an image reference"
            reader.problems.append(InvalidInput(f"stage `{name}` needs the key `image`", span, hint=hint))
        if (twice := node.entry("env")) and node.entry("environment"):
            reader.problems.append(InvalidInput("`env` and `environment` are the same key", twice.key_span))

    return Record(
        build,
        _STAGE_KEYS,
        given=(("name", name), ("span", span)),
        parts={"container": ContainerKeys},
        what=f"stage `{name}`" if name else "a stage",
        check=check,
    )
