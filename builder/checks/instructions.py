"""Checks of instructions, made while a stage is gone through: what is defined then, and what came before."""

from __future__ import annotations

import re

from builder.checks import rules
from builder.checks.findings import Findings
from builder.dockerfile import ast
from builder.dockerfile.nodes import Node
from builder.dockerfile.words import Expanded, Lexer, WordError
from builder.ignore import Patterns
from builder.lower.arguments import NEVER_IN_ENVIRONMENT
from builder.lower.copying import context_paths
from builder.lower.state import StageState
from runtime.errors import did_you_mean

_SECRET = re.compile(r"(?i)(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)")
_HARMLESS = re.compile(r"(?i)(?:_|^)(?:public|file|version)(?:_|$)")
_WHOLE_CONTEXT = ("*", "**", "**/*")
_HINTS = 20


class InstructionChecks:
    """A `stage.Watcher`."""

    def __init__(self, findings: Findings, ignore: Patterns | None, escape: str) -> None:
        self._findings, self._ignore = findings, ignore
        self._lexer = Lexer(escape)
        self._earlier: dict[tuple[int, str], Node] = {}
        self._stage = -1
        self._hints = 0

    def begin(self, number: int) -> None:
        """A new stage: what was set once in another may be set again."""
        self._stage = number

    def expanded(self, node: Node, word: str, found: Expanded, state: StageState) -> None:
        """Report variables nobody set; where the base image is not known, neither is what it sets."""
        if not state.complete or not found.unmatched:
            return
        declared = {argument.name for argument in state.arguments}
        for name in sorted(found.unmatched - declared - NEVER_IN_ENVIRONMENT):
            if not name.isdigit() and re.fullmatch(r"\w+", name):
                hint = self._near(name, state)
                message = f"variable `${name}` is not defined" + (f", {hint}" if hint else "")
                self._findings.report(rules.UNDEFINED_VAR, message, node)

    def _near(self, name: str, state: StageState) -> str:
        """What was meant, for the first few: to look for it takes milliseconds among hundreds of variables."""
        if self._hints >= _HINTS:
            return ""
        self._hints += 1
        return did_you_mean(name, state.variables)

    def instruction(self, command: ast.Command, state: StageState) -> None:
        match command:
            case ast.Cmd() | ast.Entrypoint():
                self._check_once(command.node)
                self._check_json(command, state)
            case ast.Healthcheck():
                self._check_once(command.node)
            case ast.Maintainer():
                message = "MAINTAINER is deprecated, use LABEL org.opencontainers.image.authors"
                self._findings.report(rules.MAINTAINER_DEPRECATED, message, command.node)
            case ast.Env() | ast.Label():
                self._check_pairs(command)
            case ast.Arg():
                self._check_secrets(command.node, [argument.name for argument in command.arguments])
            case ast.Workdir():
                self._check_workdir(command, state)
            case ast.Expose():
                self._check_expose(command, state)
            case ast.Add() | ast.Copy():
                self._check_ignored(command, state)
            case _:
                pass

    def _check_once(self, node: Node) -> None:
        key = (self._stage, node.name)
        if (before := self._earlier.get(key)) is not None:
            message = f"this {node.name} has no effect: a later one of the stage replaces it"
            self._findings.report(rules.MULTIPLE_INSTRUCTIONS_DISALLOWED, message, before)
        self._earlier[key] = node

    def _check_json(self, command: ast.Cmd | ast.Entrypoint, state: StageState) -> None:
        if command.shell and not state.config.shell:
            message = f"{command.node.name} should be a JSON array, so that signals reach the program"
            self._findings.report(rules.JSON_ARGS_RECOMMENDED, message, command.node)

    def _check_pairs(self, command: ast.Env | ast.Label) -> None:
        node = command.node
        if any(pair.legacy for pair in command.pairs):
            message = f"write `{node.name} key=value` instead of `{node.name} key value`"
            self._findings.report(rules.LEGACY_KEY_VALUE_FORMAT, message, node)
        if isinstance(command, ast.Env):
            self._check_secrets(node, [pair.key for pair in command.pairs])

    def _check_secrets(self, node: Node, names: list[str]) -> None:
        for name in names:
            if _SECRET.search(name) and not _HARMLESS.search(name):
                message = f"{node.name} `{name}` looks like a secret, which stays readable in the image"
                self._findings.report(rules.SECRETS_USED_IN_ARG_OR_ENV, message, node)

    def _check_workdir(self, command: ast.Workdir, state: StageState) -> None:
        path = self._expand(command.path, state)
        if path and not state.workdir_set and not path.startswith("/"):
            message = f"WORKDIR `{path}` is relative to whatever the base image has"
            self._findings.report(rules.WORKDIR_RELATIVE_PATH, message, command.node)

    def _check_expose(self, command: ast.Expose, state: StageState) -> None:
        words = [word for port in command.ports for word in self._expand(port, state).split()]
        for word in words:
            _address, colon, port = word.rpartition(":")
            if colon:
                message = f"EXPOSE takes a container's port only, not `{word}`"
                self._findings.report(rules.EXPOSE_INVALID_FORMAT, message, command.node)
            protocol = port.partition("/")[2]
            if protocol != protocol.lower():
                message = f"protocol of `{word}` should be in lower case"
                self._findings.report(rules.EXPOSE_PROTO_CASING, message, command.node)

    def _check_ignored(self, command: ast.Add | ast.Copy, state: StageState) -> None:
        ignore = self._ignore
        # With exceptions in it, only walking the files could tell.
        if not ignore or ignore.has_reincludes or (isinstance(command, ast.Copy) and command.origin):
            return
        for path in context_paths(self._expand(source, state) for source in command.sources):
            whole = path == "." and any(pattern.text in _WHOLE_CONTEXT for pattern in ignore.patterns)
            if whole or ignore.excludes(path):
                message = f"{command.node.name} of `{path}`, which the ignore file excludes"
                self._findings.report(rules.COPY_IGNORED_FILE, message, command.node)

    def _expand(self, word: str, state: StageState) -> str:
        try:
            return self._lexer.expand(word, state.variables)
        except WordError:
            return ""  # lowering reports it
