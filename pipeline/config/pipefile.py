"""The table of pipe.yaml: its keys, what they take, and the spec they become. `pipe schema` prints this very table."""

from __future__ import annotations

import re
from typing import Any

from pipeline.conditions import ALWAYS, Clause, Condition, Expression, parse_expression
from pipeline.config.container import NOWHERE, ContainerKeys, SecretSpec
from pipeline.config.container_keys import (
    CONTAINER,
    SERVICES,
    STAGE_SERVICES,
    Command,
    Environment,
    Pairs,
    SecretUses,
    parse_hosts,
    secret_source,
)
from pipeline.config.document import Mapping, Node, Scalar, Sequence, kind_of
from pipeline.config.interpolate import script_variables
from pipeline.config.shapes import (
    Choice,
    Convert,
    Duration,
    Either,
    Flag,
    Integer,
    Json,
    Key,
    ListOf,
    MapOf,
    Name,
    Reader,
    Record,
    Shape,
    Size,
    Text,
    scalar,
)
from pipeline.spec import (
    AllowFailure,
    ArtifactSpec,
    EnvironmentSpec,
    HealthGate,
    ImageSpec,
    MatrixSpec,
    Need,
    NetworkSpec,
    PipelineSpec,
    RetrySpec,
    Script,
    ScriptPart,
    StageSpec,
    VolumeSpec,
)
from runtime.errors import InvalidInput
from runtime.spans import Span

MATRIX_LIMIT = 200  # GitLab's


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


class If(Shape[Expression]):
    def parse(self, node: Node, reader: Reader) -> Expression:
        expression = parse_expression(scalar(node, self).text, node.span)
        for name in expression.names():
            try:
                reader.lookup(name if "." in name else f"env.{name}")
            except KeyError as error:
                raise InvalidInput(
                    f"unknown name `{name}` in `if`", node.span, hint=str(error.args[0])
                ) from error
        return expression

    def schema(self) -> Json:
        return {"type": ["string", "boolean"]}

    def expects(self) -> str:
        return "an expression"


_GLOBS = ListOf(Text(later=False), single=True)
_CLAUSE = Record(
    Clause,
    {
        "branch": Key(_GLOBS, "globs of branch names; `!glob` takes away"),
        "tag": Key(_GLOBS, "globs of tags, or true for any tag"),
        "changes": Key(_GLOBS, "one of these paths changed since the merge base"),
        "exists": Key(_GLOBS, "these files exist"),
        "env": Key(Environment(), "variables and the globs they must match"),
    },
    what="`when`",
)


class When(Shape[tuple[Clause, ...]]):
    """A mapping (all must hold) or a list of mappings (one must)."""

    def parse(self, node: Node, reader: Reader) -> tuple[Clause, ...]:
        return ListOf(_CLAUSE, single=True).parse(node, reader)

    def schema(self) -> Json:
        return ListOf(_CLAUSE, single=True).schema()


CONDITION = {
    "when": Key(When(), "only when this holds"),
    "if": Key(If(), "only when this expression is true", "if_"),
}


def _condition(given: dict[str, Any]) -> dict[str, Any]:
    clauses, expression = given.pop("when", ()), given.pop("if_", None)
    return {**given, "when": Condition(clauses, expression) if clauses or expression else ALWAYS}


def _secret(name: str, span: Span) -> Shape[SecretSpec]:
    return secret_source(name, span, CONDITION, lambda **given: SecretSpec(**_condition(given)))


_IMAGE_KEYS = {
    "context": Key(Text(), "directory, or URL, of the build context"),
    "dockerfile": Key(Text(), "Dockerfile, relative to the context"),
    "dockerfile_inline": Key(Text(raw=True), "the Dockerfile itself"),
    "target": Key(Text(), "stage of the Dockerfile to build"),
    "args": Key(Environment(), "build arguments"),
    "tags": Key(ListOf(Text()), "tags it is pushed under; `latest` without"),
    "labels": Key(Pairs(), "labels of the image"),
    "platforms": Key(ListOf(Text()), "os/arch to build for"),
    "additional_contexts": Key(Pairs(), "named contexts for FROM and COPY --from"),
    "secrets": Key(SecretUses(), "secrets for RUN --mount=type=secret"),
    "ssh": Key(ListOf(Text()), "agents for RUN --mount=type=ssh"),
    "network": Key(Choice(("default", "none", "host")), "network of RUN"),
    "extra_hosts": Key(Convert(Pairs("=:"), parse_hosts), "lines of /etc/hosts in RUN"),
    "shm_size": Key(Size(), "size of /dev/shm in RUN"),
    "no_cache": Key(Flag(), "build it anew every time"),
    "pull": Key(Flag(), "ask the registry for newer base images"),
    "push": Key(Flag(), "push it with every deploy, though no service uses it"),
    "extends": Key(Text(later=False), "another image this one is like", "_extends"),
    **CONDITION,
}


def _image(name: str, span: Span) -> Shape[ImageSpec]:
    def build(*, _extends: str = "", **given: Any) -> ImageSpec:
        return ImageSpec(**_condition(given))

    return Record(
        build, _IMAGE_KEYS, given=(("name", name), ("span", span)), what=f"image `{name}`", null=True
    )


class Needs(Shape[tuple[Need, ...]]):
    def parse(self, node: Node, reader: Reader) -> tuple[Need, ...]:
        items = node.items if isinstance(node, Sequence) else (node,)
        found = [reader.attempt(_NeedItem(), item) for item in items]
        return tuple(need for need in found if need is not None)

    def schema(self) -> Json:
        one = _NeedItem().long(NOWHERE).schema()
        return {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"anyOf": [{"type": "string"}, one]}}]
        }


class _NeedItem(Shape[Need]):
    def parse(self, node: Node, reader: Reader) -> Need:
        if isinstance(node, Mapping):
            return self.long(node.span).parse(node, reader)
        return Need(Text(later=False).parse(node, reader), span=node.span)

    def long(self, span: Span) -> Record[Need]:
        keys = {
            "stage": Key(Text(later=False), "the stage", required=True),
            "optional": Key(Flag(), "go on when it is left out of the run"),
            "artifacts": Key(Flag(), "put its artifacts where it had them"),
        }
        return Record(Need, keys, given=(("span", span),), what="a need")


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
            "exclude": Key(_GLOBS, "globs not to keep"),
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


def _stage(name: str, span: Span) -> Shape[StageSpec]:
    def build(*, _extends: str = "", **given: Any) -> StageSpec:
        return StageSpec(**_condition(given))

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


_HEALTH_KEYS = {
    "http": Key(Text(r"https?://.+", "an http URL"), "this URL must answer"),
    "status": Key(Integer(100, 599), "with this status; any 2xx or 3xx without"),
    "tcp": Key(Text(r".+:\d+", "HOST:PORT"), "this port must accept connections"),
    "exec": Key(Command(), "this command must succeed in `service`"),
    "service": Key(Name(), "where `exec` runs"),
    "timeout": Key(Duration(), "time to become healthy"),
    "interval": Key(Duration(), "time between probes"),
    "soak": Key(Duration(), "how long it must stay healthy"),
}
_HEALTH = Record(HealthGate, _HEALTH_KEYS, what="`health`", spanned=True)


def _network(name: str, span: Span) -> Shape[NetworkSpec]:
    ipam = Record(
        lambda *, config=(), driver="": config[0] if config else {},
        {
            "driver": Key(Text(), "only the default"),
            "config": Key(
                ListOf(Record(dict, {"subnet": Key(Text(), "addresses"), "gateway": Key(Text(), "gateway")})),
                "address ranges",
            ),
        },
    )
    keys = {
        "external": Key(Flag(), "it is there already"),
        "internal": Key(Flag(), "no way out"),
        "name": Key(Name(), "its real name", "real_name"),
        "driver": Key(Choice(("bridge",)), "only bridge", "_driver"),
        "labels": Key(Pairs(), "labels"),
        "ipam": Key(ipam, "addresses"),
    }
    return Record(
        lambda *, _driver="", ipam=None, **g: NetworkSpec(**g, **(ipam or {})),
        keys,
        given=(("name", name),),
        null=True,
        what=f"network `{name}`",
    )


def _volume(name: str, span: Span) -> Shape[VolumeSpec]:
    keys = {
        "external": Key(Flag(), "it is there already"),
        "name": Key(Name(), "its real name", "real_name"),
        "driver": Key(Choice(("local",)), "only local", "_driver"),
        "driver_opts": Key(Pairs(), "type, o, device", "options"),
        "labels": Key(Pairs(), "labels"),
    }
    return Record(
        lambda *, _driver="", **given: VolumeSpec(**given),
        keys,
        given=(("name", name),),
        null=True,
        what=f"volume `{name}`",
    )


NETWORKS = MapOf(_network, _network("", NOWHERE))
VOLUMES = MapOf(_volume, _volume("", NOWHERE))


class Anything(Shape[bool]):
    """Accepted as it is; the deploy says what it cannot do yet."""

    def parse(self, node: Node, reader: Reader) -> bool:
        return True


class ComposePath(Shape[tuple[str, Span]]):
    def parse(self, node: Node, reader: Reader) -> tuple[str, Span]:
        return Text(later=False).parse(node, reader), node.span

    def schema(self) -> Json:
        return {"type": "string"}


_ENVIRONMENT_KEYS = {
    "engine": Key(Text(later=False), "`local`; ssh://, tcp:// and unix:// are not there yet"),
    "compose": Key(ComposePath(), "a compose file with the services"),
    "services": Key(SERVICES, "the services, in Compose's words"),
    "networks": Key(NETWORKS, "networks of the services"),
    "volumes": Key(VOLUMES, "volumes of the services"),
    "env": Key(Environment(), "variables for all services"),
    "needs": Key(Needs(), "environments and stages first; without it, all stages"),
    "approve": Key(Flag(), "ask a person first"),
    "health": Key(_HEALTH, "what must hold before it counts as up"),
    "project": Key(Name(r"[a-z0-9][a-z0-9_-]*", "a project name"), "prefix of its containers"),
    "url": Key(Text(), "where people find it"),
    "timeout": Key(Duration(), "time for the whole deploy"),
    "kubernetes": Key(Anything(), "not there yet"),
    **CONDITION,
}


def _environment(name: str, span: Span) -> Shape[EnvironmentSpec]:
    def build(*, compose: tuple[str, Span] = ("", NOWHERE), **given: Any) -> EnvironmentSpec:
        return EnvironmentSpec(compose=compose[0], compose_span=compose[1], **_condition(given))

    def check(spec: EnvironmentSpec, node: Mapping, reader: Reader) -> None:
        sources = [word for word in ("compose", "services", "kubernetes") if node.entry(word)]
        if len(sources) != 1:
            problem = (
                f"environment `{name}` has {' and '.join(f'`{word}`' for word in sources) or 'no services'}"
            )
            hint = "give it exactly one of `compose: FILE` and `services:`"
            reader.problems.append(InvalidInput(problem, node.span, hint=hint))

    return Record(
        build,
        _ENVIRONMENT_KEYS,
        given=(("name", name), ("span", span)),
        what=f"environment `{name}`",
        check=check,
    )


PIPEFILE_KEYS = {
    "name": Key(
        Name(r"[a-z0-9][a-z0-9_.-]{0,62}", "a project name"),
        "the project; its directory's name without",
        "name",
    ),
    "registry": Key(Text(later=False), "prefix of pushed images; the embedded registry without"),
    "env": Key(Environment(), "variables of all stages"),
    "secrets": Key(MapOf(_secret, _secret("", NOWHERE)), "where secrets come from"),
    "images": Key(
        MapOf(_image, _image("", NOWHERE), r"[a-z0-9]+(?:[._-][a-z0-9]+)*", "an image name"),
        "images to build",
    ),
    "stages": Key(MapOf(_stage, _stage("", NOWHERE)), "test stages"),
    "deploy": Key(
        MapOf(_environment, _environment("", NOWHERE)), "environments to deploy to", "environments"
    ),
    "jobs": Key(Integer(1, 256), "how many nodes at once"),
    "timeout": Key(Duration(), "time for the whole run"),
    "version": Key(Convert(Text(), lambda _: None), "accepted and ignored", "_version"),
}


def pipefile_shape(root: str, file: str, default_name: str) -> Record[PipelineSpec]:
    def build(*, name: str = default_name, _version: None = None, **given: Any) -> PipelineSpec:
        return PipelineSpec(name=name, root=root, file=file, **given)

    return Record(build, PIPEFILE_KEYS, what="pipe.yaml", spanned=True)


def json_schema() -> Json:
    """pipe.yaml as JSON Schema (draft 2020-12)."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "pipe.yaml"}
    return {**head, **pipefile_shape("", "", "").schema()}
