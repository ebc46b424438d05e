"""From nodes to typed instructions: flags and argument counts are checked here, once, for every instruction.

Adding an instruction: a class in `ast.py`, a rule in `grammar/instruction.lark`, a function here and its line in
`_PARSERS`. The functions are pure; the error they raise points at the word that is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from builder.dockerfile import ast
from builder.dockerfile.durations import parse_duration
from builder.dockerfile.flags import Flags, Kind, parse_flags
from builder.dockerfile.heredocs import parse_heredoc
from builder.dockerfile.mounts import parse_mount
from builder.dockerfile.nodes import WHITE, Comment, Heredoc, Node
from registry_client.oci.config import Healthcheck
from runtime.errors import did_you_mean

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_NETWORKS = ("default", "none", "host")
_SECURITY = ("sandbox", "insecure")
_MINIMUM_INTERVAL = 1_000_000  # Docker's: one millisecond

_COPY_FLAGS = {
    "from": Kind.TEXT, "chown": Kind.TEXT, "chmod": Kind.TEXT, "link": Kind.BOOLEAN, "parents": Kind.BOOLEAN,
    "exclude": Kind.LIST,
}  # fmt: skip
_ADD_FLAGS = {
    "chown": Kind.TEXT, "chmod": Kind.TEXT, "link": Kind.BOOLEAN, "parents": Kind.BOOLEAN, "exclude": Kind.LIST,
    "keep-git-dir": Kind.BOOLEAN, "checksum": Kind.TEXT, "unpack": Kind.BOOLEAN,
}  # fmt: skip
_RUN_FLAGS = {"mount": Kind.LIST, "network": Kind.TEXT, "security": Kind.TEXT, "device": Kind.LIST}
_HEALTH_FLAGS = {
    "interval": Kind.TEXT, "timeout": Kind.TEXT, "start-period": Kind.TEXT, "start-interval": Kind.TEXT,
    "retries": Kind.TEXT,
}  # fmt: skip


def parse_instruction(node: Node) -> ast.Command | ast.From:
    """The typed form of a node."""
    parser = _PARSERS.get(node.name)
    if not node.keyword:
        raise node.error(
            "a continuation without an instruction", hint="remove the line, or write an instruction"
        )
    if parser is None:
        word = node.keyword if node.keyword.isprintable() else ascii(node.keyword)
        raise node.error(f"unknown instruction: {word}", hint=did_you_mean(node.keyword, _PARSERS))
    if any("\0" in word for word in (*node.flags, *node.args)):
        raise node.error("a NUL byte", hint="no path, variable or argument can hold one")
    return parser(node)


def description_of(comments: tuple[Comment, ...], name: str) -> str:
    """The text of a comment `# name text` above a FROM or ARG (FEATURES A-13)."""
    texts = (comment.text for comment in comments)
    return next((text[len(name) + 1 :] for text in texts if name and text.startswith(name + " ")), "")


def _no_flags(node: Node) -> None:
    parse_flags(node, {})


def _some(node: Node) -> tuple[str, ...]:
    _no_flags(node)
    if not node.args:
        raise node.error(f"{node.name} requires at least one argument")
    return node.args


def _one(node: Node) -> str:
    _no_flags(node)
    if len(node.args) != 1:
        raise node.error(f"{node.name} requires exactly one argument")
    return node.args[0]


def _from(node: Node) -> ast.From:
    flags = parse_flags(node, {"platform": Kind.TEXT})
    args, name = node.args, ""
    if len(args) == 3 and args[1].lower() == "as":
        name = args[2].lower()
        if not _STAGE_NAME.fullmatch(name):
            raise node.error(
                f"invalid name for build stage: {args[2]!r}",
                args[2],
                hint="a name starts with a letter and has letters, digits, `-`, `_` and `.` only",
            )
    elif len(args) != 1:
        raise node.error("FROM requires either one or three arguments", hint="FROM image [AS name]")
    return ast.From(node, args[0], name, flags.text("platform"), description_of(node.comments, name))


def _paths(node: Node) -> tuple[tuple[str, ...], tuple[Heredoc, ...], str]:
    """Sources, inline files and destination of COPY and ADD."""
    if len(node.args) < 2:
        raise node.error(
            f"{node.name} requires at least two arguments, but only {len(node.args)} was provided",
            hint=f"{node.name} source… destination",
        )
    *words, dest = node.args
    if parse_heredoc(dest):
        raise node.error(f"{node.name} cannot accept a heredoc as a destination", dest)
    if node.json or not node.heredocs:
        return tuple(words), (), dest
    bodies = {heredoc.name: heredoc for heredoc in node.heredocs}
    sources: list[str] = []
    files: list[Heredoc] = []
    for word in words:
        heredoc = parse_heredoc(word)
        if heredoc is None:
            sources.append(word)
        else:
            files.append(bodies.get(heredoc.name, heredoc))
    return tuple(sources), tuple(files), dest


def _copy(node: Node) -> ast.Copy:
    flags = parse_flags(node, _COPY_FLAGS)
    sources, files, dest = _paths(node)
    origin = flags.text("from")
    if "$" in origin:
        raise node.error(
            "variable expansion is not supported for --from",
            "--from",
            hint="define a stage: `FROM $image AS name` with a global ARG, then --from=name",
        )
    return ast.Copy(
        node, sources, files, dest, origin, flags.text("chown"), flags.text("chmod"), flags.boolean("link"),
        flags.boolean("parents"), flags.texts("exclude"),
    )  # fmt: skip


def _add(node: Node) -> ast.Add:
    flags = parse_flags(node, _ADD_FLAGS)
    sources, files, dest = _paths(node)
    return ast.Add(
        node, sources, files, dest, flags.text("chown"), flags.text("chmod"), flags.boolean("link"),
        flags.boolean("parents"), flags.texts("exclude"), flags.text("checksum"), flags.optional("keep-git-dir"),
        flags.optional("unpack"),
    )  # fmt: skip


def _run(node: Node) -> ast.Run:
    flags = parse_flags(node, _RUN_FLAGS)
    return ast.Run(
        node,
        node.args,
        not node.json,
        tuple(parse_mount(node, text) for text in flags.texts("mount")),
        _choice(node, flags, "network", _NETWORKS),
        _choice(node, flags, "security", _SECURITY),
        flags.texts("device"),
    )


def _choice(node: Node, flags: Flags, name: str, choices: tuple[str, ...]) -> str:
    value = flags.text(name)
    if value and value not in choices:
        hint = did_you_mean(value, choices) or "one of " + ", ".join(choices)
        raise node.error(f"unsupported {name} mode {value!r}", f"--{name}", hint=hint)
    return value


def _cmd(node: Node) -> ast.Cmd:
    _no_flags(node)
    return ast.Cmd(node, node.args, not node.json)


def _entrypoint(node: Node) -> ast.Entrypoint:
    _no_flags(node)
    return ast.Entrypoint(node, node.args, not node.json)


def _shell(node: Node) -> ast.Shell:
    words = _some(node)
    if not node.json:
        raise node.error(
            "SHELL requires the arguments to be in JSON form", hint='SHELL ["executable", "parameter"]'
        )
    return ast.Shell(node, words)


def _pairs(node: Node) -> tuple[ast.Pair, ...]:
    args = _some(node)
    pairs = tuple(
        ast.Pair(key, value, not equals) for key, value, equals in zip(args[::3], args[1::3], args[2::3])
    )
    if any(not pair.key for pair in pairs):
        raise node.error(f"{node.name} names can not be blank")
    return pairs


def _env(node: Node) -> ast.Env:
    return ast.Env(node, _pairs(node))


def _label(node: Node) -> ast.Label:
    return ast.Label(node, _pairs(node))


def _arg(node: Node) -> ast.Arg:
    arguments = []
    for word in _some(node):
        name, equals, default = word.partition("=")
        if not name:
            raise node.error("ARG names can not be blank", word)
        description = description_of(node.comments, name)
        arguments.append(ast.Argument(name, default if equals else None, description))
    return ast.Arg(node, tuple(arguments))


def _workdir(node: Node) -> ast.Workdir:
    return ast.Workdir(node, _one(node))


def _user(node: Node) -> ast.User:
    return ast.User(node, _one(node))


def _expose(node: Node) -> ast.Expose:
    return ast.Expose(node, tuple(sorted(_some(node))))


def _volume(node: Node) -> ast.Volume:
    paths = tuple(path.strip(WHITE) for path in _some(node))
    if not all(paths):
        raise node.error("VOLUME specified can not be an empty string")
    return ast.Volume(node, paths)


def _stop_signal(node: Node) -> ast.StopSignal:
    return ast.StopSignal(node, _one(node))


def _maintainer(node: Node) -> ast.Maintainer:
    return ast.Maintainer(node, _one(node))


def _healthcheck(node: Node) -> ast.Healthcheck:
    flags = parse_flags(node, _HEALTH_FLAGS)
    if not node.args:
        raise node.error(
            "HEALTHCHECK requires at least one argument", hint="HEALTHCHECK CMD command, or NONE"
        )
    kind, *words = node.args
    if kind.upper() == "NONE":
        if words:
            raise node.error("HEALTHCHECK NONE takes no arguments")
        return ast.Healthcheck(node, Healthcheck(("NONE",)))
    if kind.upper() != "CMD":
        raise node.error(f"unknown type {kind!r} in HEALTHCHECK", kind, hint="try CMD")
    if not words:
        raise node.error("missing command after HEALTHCHECK CMD")
    test = ("CMD" if node.json else "CMD-SHELL", *words)
    check = Healthcheck(
        test,
        interval=_interval(node, flags, "interval"),
        timeout=_interval(node, flags, "timeout"),
        start_period=_interval(node, flags, "start-period"),
        start_interval=_interval(node, flags, "start-interval"),
        retries=_retries(node, flags),
    )
    return ast.Healthcheck(node, check)


def _interval(node: Node, flags: Flags, name: str) -> int:
    text = flags.text(name)
    if not text:
        return 0
    try:
        value = parse_duration(text)
    except ValueError as error:
        raise node.error(str(error), f"--{name}") from error
    if value and value < _MINIMUM_INTERVAL:
        raise node.error(f"--{name}={text} cannot be less than 1ms", f"--{name}")
    return value


def _retries(node: Node, flags: Flags) -> int:
    text = flags.text("retries")
    if not text:
        return 0
    if not re.fullmatch(r"\+?\d{1,9}", text):
        raise node.error(f"--retries must be a number that is not negative, not {text!r}", "--retries")
    return int(text)


def _onbuild(node: Node) -> ast.Onbuild:
    _no_flags(node)
    if node.child is None:
        raise node.error("ONBUILD requires at least one argument")
    trigger = node.child.name
    if trigger in ("FROM", "MAINTAINER"):
        raise node.error(f"{trigger} is not allowed as an ONBUILD trigger", node.child.keyword)
    expression = re.sub(r"(?i)^\s*ONBUILD\s*", "", node.original)
    for heredoc in node.heredocs:
        expression += f"\n{heredoc.content}{heredoc.name}"
    # The trigger itself is looked at where it fires, as BuildKit does: it may be meant for another version.
    return ast.Onbuild(node, expression)


_PARSERS: Mapping[str, Callable[[Node], ast.Command | ast.From]] = {
    "ADD": _add, "ARG": _arg, "CMD": _cmd, "COPY": _copy, "ENTRYPOINT": _entrypoint, "ENV": _env, "EXPOSE": _expose,
    "FROM": _from, "HEALTHCHECK": _healthcheck, "LABEL": _label, "MAINTAINER": _maintainer, "ONBUILD": _onbuild,
    "RUN": _run, "SHELL": _shell, "STOPSIGNAL": _stop_signal, "USER": _user, "VOLUME": _volume, "WORKDIR": _workdir,
}  # fmt: skip
