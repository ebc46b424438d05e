"""Read a pipe.yaml, and the compose files it names, into a PipelineSpec. The one module here that opens files.

All mistakes of a file are found before any is reported. What it means (unknown stages, cycles) is checked by the plan.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping as MappingOf

from pipeline.config.compose import load_compose
from pipeline.config.document import Entry, Mapping, Node, Scalar, deep_merge, kind_of, parse_document
from pipeline.config.dotenv import parse_dotenv
from pipeline.config.interpolate import unknown_context
from pipeline.config.pipefile import pipefile_shape
from pipeline.config.shapes import Reader
from pipeline.gitfacts import NAMES, GitFacts
from pipeline.spec import EnvironmentSpec, InvalidPipeline, PipelineSpec, Reference
from registry_client.values import replace
from runtime.errors import InvalidInput, NotFound, did_you_mean
from runtime.spans import Source, Span

_USED = re.compile(r"\$\{((?:images|stages|matrix)\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)")
_TOLD = {
    "branch": ("CI_COMMIT_BRANCH", "GITHUB_HEAD_REF", "GITHUB_REF_NAME"),
    "tag": ("CI_COMMIT_TAG",),
}
FILE_NAMES = ("pipe.yaml", "pipe.yml")


class Surroundings:
    """What values may ask for: variables (given on the command line, else the process's, else `.env`) and git."""

    def __init__(self, root: str, env: MappingOf[str, str], given: MappingOf[str, str] | None = None) -> None:
        self.root = root
        self.git = GitFacts(root)
        self.variables = {**_read_dotenv(root), **env, **(given or {})}
        self.given = dict(given or {})

    def lookup(self, path: str) -> str | None:
        """A variable, `git.*` or `env.*`; None for what is unset or known only later; KeyError with a hint for nonsense."""
        context, dot, rest = path.partition(".")
        if not dot:
            return self.variables.get(path)
        match context:
            case "env":
                return self.variables.get(rest)
            case "git":
                if rest not in NAMES:
                    raise unknown_context(rest, NAMES)
                return self.git.get(rest) or self._told(rest)
            case "matrix" if "." not in rest:
                return None
            case "images":
                _check(rest, ("digest", "id"), 2)
            case "stages":
                _check(rest, ("outputs", "outcome"), 2 if rest.endswith(".outcome") else 3)
            case _:
                raise unknown_context(context)
        return None

    def _told(self, fact: str) -> str | None:
        """What a CI service says of a checkout without a branch (a detached HEAD)."""
        found = (self.variables.get(name) for name in _TOLD.get(fact, ()))
        return next(filter(None, found), None)


def _check(rest: str, words: tuple[str, ...], length: int) -> None:
    parts = rest.split(".")
    if len(parts) != length or parts[1] not in words:
        raise unknown_context(parts[1] if len(parts) > 1 else "", words)


def _read_dotenv(root: str) -> dict[str, str]:
    path = os.path.join(root, ".env")
    if not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8", errors="replace") as file:
        return parse_dotenv(file.read(), path)


def find_pipefile(directory: str, file: str = "") -> str:
    """The path of the pipe.yaml: `file` if given, else the nearest one in `directory` or above it."""
    if file:
        path = os.path.join(directory, file)
        if not os.path.isfile(path):
            raise NotFound(f"no pipeline file {file}")
        return path
    here = os.path.abspath(directory)
    while True:
        for name in FILE_NAMES:
            if os.path.isfile(os.path.join(here, name)):
                return os.path.join(here, name)
        if os.path.dirname(here) == here or os.path.exists(os.path.join(here, ".git")):
            raise NotFound(
                f"no pipe.yaml in {os.path.abspath(directory)} or above",
                hint="`docs/pipe-yaml.md` shows how to write one",
            )
        here = os.path.dirname(here)


def read_text(path: str, name: str) -> str:
    """The text of a configuration file; anything but UTF-8 is refused with its place."""
    try:
        with open(path, "rb") as file:
            data = file.read((1 << 20) + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read {name}: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInput(f"{name} is not UTF-8", Span(Source(name), line)) from error


def load_pipeline(path: str, surroundings: Surroundings) -> PipelineSpec:
    """The spec of a pipe.yaml; InvalidPipeline holds all its problems."""
    root = os.path.dirname(os.path.abspath(path))
    name = os.path.basename(path)
    spec, reader = parse_pipeline(read_text(path, name), name, root, surroundings)
    environments = tuple(
        _with_compose(environment, root, reader, surroundings) for environment in spec.environments
    )
    if reader.problems:
        raise InvalidPipeline(sorted_problems(reader.problems))
    return replace(spec, environments=environments, warnings=_warnings(reader))


def parse_pipeline(
    text: str, name: str, root: str, surroundings: Surroundings
) -> tuple[PipelineSpec, Reader]:
    """Pure but for git facts the text asks for. Raises only when there is nothing to go on with."""
    document = parse_document(text, name)
    reader = Reader(surroundings.lookup)
    if isinstance(document, Scalar) and document.null:
        raise InvalidInput(f"{name} is empty", document.span, hint="it needs `images:` and `stages:`")
    if not isinstance(document, Mapping):
        raise InvalidInput(f"{name} must be a mapping, not {kind_of(document)}", document.span)
    document = _extended(document, reader)
    references = tuple(_references(document))
    try:
        spec = pipefile_shape(root, name, _project_name(surroundings.root)).parse(document, reader)
    except InvalidInput as problem:
        raise InvalidPipeline(sorted_problems([*reader.problems, problem])) from problem
    return replace(spec, references=references), reader


def sorted_problems(problems: list[InvalidInput]) -> tuple[InvalidInput, ...]:
    """In the order of the file, each once (an anchor used twice is wrong once)."""
    unique = {(str(problem.span), problem.message): problem for problem in problems}
    return tuple(
        sorted(
            unique.values(),
            key=lambda p: (p.span.source.name, p.span.line, p.span.column) if p.span else ("", 0, 0),
        )
    )


def _warnings(reader: Reader) -> tuple[tuple[str, Span], ...]:
    unset = {(unset.name, unset.span): None for unset in reader.unset}
    return (
        *reader.warnings,
        *((f"the variable `{name}` is not set; it is empty", span) for name, span in unset),
    )


def _project_name(root: str) -> str:
    """Compose's rule: the directory's name in lower case, without what a name may not have (FEATURES F-2)."""
    name = "".join(c for c in os.path.basename(root).lower() if c.isascii() and (c.isalnum() or c in "_-"))
    return name.lstrip("_-") or "project"


def _extended(document: Mapping, reader: Reader) -> Mapping:
    """The document with `extends` of images and stages resolved: merged key by key, lists replaced."""
    entries = []
    for entry in document:
        if entry.key in ("images", "stages") and isinstance(entry.value, Mapping):
            entry = Entry(entry.key, entry.key_span, _extend_all(entry.value, entry.key, reader))
        entries.append(entry)
    return Mapping(tuple(entries), document.span, document.weight)


# An image made like another one is not that other one: its names are its own.
_OWN = {"images": frozenset(("tags", "extends", "push")), "stages": frozenset(("extends", "needs"))}


def _extend_all(group: Mapping, word: str, reader: Reader) -> Mapping:
    done: dict[str, Node] = {}

    def resolve(entry: Entry, chain: tuple[str, ...]) -> Node:
        if entry.key in done:
            return done[entry.key]
        node = entry.value
        extends = node.get("extends") if isinstance(node, Mapping) else None
        if isinstance(node, Mapping) and isinstance(extends, Scalar):
            if extends.text in (*chain, entry.key):
                raise InvalidInput(
                    f"`{entry.key}` extends itself: {' → '.join((*chain, entry.key, extends.text))}",
                    extends.span,
                )
            base = group.entry(extends.text)
            if base is None:
                hint = did_you_mean(extends.text, [other.key for other in group])
                raise InvalidInput(
                    f"`{entry.key}` extends the unknown {word[:-1]} `{extends.text}`", extends.span, hint=hint
                )
            below = resolve(base, (*chain, entry.key))
            if isinstance(below, Mapping):
                node = deep_merge(below, node, drop=_OWN[word])
        done[entry.key] = node
        return node

    entries = []
    for entry in group:
        try:
            entries.append(Entry(entry.key, entry.key_span, resolve(entry, ())))
        except InvalidInput as problem:
            reader.problems.append(problem)
    return Mapping(tuple(entries), group.span, group.weight)


def _references(document: Mapping) -> list[Reference]:
    """Every `images.…` and `stages.…` context in a text of a stage, image or environment."""
    found: list[Reference] = []
    for group, owner in (("images", "image"), ("stages", "stage"), ("deploy", "deploy")):
        things = document.get(group)
        for entry in things if isinstance(things, Mapping) else ():
            _collect(entry.value, f"{owner}/{entry.key}", found)
    return found


def _collect(node: Node, owner: str, found: list[Reference]) -> None:
    if isinstance(node, Scalar):
        for match in _USED.finditer(node.text):
            found.append(Reference(owner, match[1], node.span))
    elif isinstance(node, Mapping):
        for entry in node:
            if entry.key == "if" and isinstance(entry.value, Scalar):
                found.extend(Reference(owner, path, entry.value.span) for path in _paths_of_if(entry.value))
            else:
                _collect(entry.value, owner, found)
    else:
        for item in node.items:
            _collect(item, owner, found)


def _paths_of_if(node: Scalar) -> list[str]:
    from pipeline.conditions import parse_expression

    try:
        names = parse_expression(node.text, node.span).names()
    except InvalidInput:
        return []  # the table reports it
    return [name for name in names if name.startswith(("images.", "stages.", "matrix."))]


def _with_compose(
    environment: EnvironmentSpec, root: str, reader: Reader, surroundings: Surroundings
) -> EnvironmentSpec:
    if not environment.compose:
        return environment
    path = os.path.join(root, environment.compose)
    if not os.path.isfile(path):
        problem = InvalidInput(f"no compose file {environment.compose}", environment.compose_span)
        reader.problems.append(problem)
        return environment
    compose = load_compose(read_text(path, environment.compose), environment.compose, reader)
    return replace(
        environment,
        services=compose.services,
        networks=compose.networks,
        volumes=compose.volumes,
        project=environment.project or compose.name,
    )
