"""`pipe builds` (`docker buildx history`): the builds there were, what is known of each, and its log again."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.session import Session
from pipeline.config.units import show_duration
from runtime.errors import InvalidInput, did_you_mean

if TYPE_CHECKING:
    from pipeline.builds import Builds

_NAME_LENGTH = 36
_FILTERS = ("name", "ref", "status")


@click.group()
def builds() -> None:
    """The builds there were: the last hundred, of `pipe build` with a Dockerfile and `pipe bake`."""


@click.group()
def buildx() -> None:
    """What `docker buildx` calls build, bake and history."""


@builds.command("ls")
@click.option(
    "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="By name, ref or status; !=, ~= too."
)
@click.option("--format", "form", default="table", help="table or json (a line for each).")
@click.option("--no-trunc", is_flag=True, help="Do not cut long names.")
@click.pass_obj
def list_(session: Session, filters: tuple[str, ...], form: str, no_trunc: bool) -> None:
    """List the builds, the newest first."""
    from pipeline.builds import status_of
    from pipeline.cli.container_text import table

    if form not in ("table", "json"):
        raise InvalidInput(f"--format {form!r}", hint="table or json")
    wanted = [_parsed_filter(text) for text in filters]
    found = [facts for facts in _opened(session).all() if all(_fits(facts, *each) for each in wanted)]
    if form == "json":
        for facts in found:
            click.echo(json.dumps(_listed(facts)))
        return
    rows = [("BUILD ID", "NAME", "STATUS", "CREATED AT", "DURATION")]
    for facts in found:
        name = facts["name"]
        short = name if no_trunc or len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"
        rows.append((facts["id"], short, status_of(facts), _ago(facts["started"]), _duration(facts)))
    click.echo(table(rows))


@builds.command("inspect")
@click.argument("ref", default="")
@click.option("--format", "form", default="pretty", help="pretty or json.")
@click.pass_obj
def inspect(session: Session, ref: str, form: str) -> None:
    """Show what is known of a build: the last one, REF, or ^N, the Nth before the last."""
    if form not in ("pretty", "json"):
        raise InvalidInput(f"--format {form!r}", hint="pretty or json")
    known = _opened(session)
    facts = known.facts(known.find(ref))
    click.echo(
        json.dumps(_inspected(facts), indent=2) if form == "json" else _pretty(facts), nl=form == "json"
    )


@builds.command("logs")
@click.argument("ref", default="")
@click.option("--progress", "form", default="plain", help="plain, rawjson, jsonl or tty.")
@click.pass_obj
def logs(session: Session, ref: str, form: str) -> None:
    """Show a build's log again: the last one's, REF's, or that of ^N."""
    from pipeline.ui.stream import choose_renderer

    if form not in ("plain", "rawjson", "jsonl", "tty"):
        raise InvalidInput(f"--progress {form!r}", hint="plain, rawjson, jsonl or tty")
    known = _opened(session)
    build = known.find(ref)
    renderer = choose_renderer(form, sys.stdout, expand=session.settings.debug)
    try:
        for event in known.events(build):
            renderer.update(event)
    finally:
        renderer.close()
    if left_out := known.facts(build)["left_out"]:
        click.echo(f"{left_out} bytes of output were not kept", err=True)


@builds.command("rm")
@click.argument("refs", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Forget all builds.")
@click.pass_obj
def remove(session: Session, refs: tuple[str, ...], everything: bool) -> None:
    """Forget builds. Their images and steps stay."""
    if bool(refs) == everything:
        raise InvalidInput("rm needs a REF, or --all", hint="`pipe builds ls` lists them")
    known = _opened(session)
    for build in known.ids() if everything else [known.find(ref) for ref in refs]:
        known.remove(build)


def _opened(session: Session) -> Builds:
    from pipeline.builds import Builds

    return Builds(session.settings.root)


def _parsed_filter(text: str) -> tuple[str, str, str]:
    found = re.fullmatch(r"(\w+)(!=|~=|=)(.*)", text)
    if found is None or found[1] not in _FILTERS:
        key = found[1] if found else text
        raise InvalidInput(
            f"--filter {text!r}", hint=did_you_mean(key, _FILTERS) or f"by {', '.join(_FILTERS)}"
        )
    return found[1], found[2], found[3]


def _fits(facts: dict[str, Any], key: str, operator: str, value: str) -> bool:
    from pipeline.builds import status_of

    if key == "status":
        said = {facts["status"], status_of(facts).lower()}
        equal = value.lower() in said
    else:
        own = facts["id"] if key == "ref" else facts["name"]
        equal = value in own if operator == "~=" else own == value
    return not equal if operator == "!=" else equal


def _duration(facts: dict[str, Any]) -> str:
    return show_duration(facts["ended"] - facts["started"])


def _ago(when: float) -> str:
    from runtime.ages import age

    return f"{age(max(0.0, time.time() - when))} ago"


def _moment(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1e6):06}Z"


def _listed(facts: dict[str, Any]) -> dict[str, Any]:
    """A line of `ls --format json`, with docker's keys."""
    from pipeline.builds import status_of
    from pipeline.recording import ref_of

    return {
        "cached_steps": facts["cached"],
        "completed_at": _moment(facts["ended"]),
        "completed_steps": facts["completed"],
        "created_at": _moment(facts["started"]),
        "name": facts["name"],
        "ref": ref_of(facts["id"]),
        "status": status_of(facts),
        "total_steps": facts["total"],
    }


def _inspected(facts: dict[str, Any]) -> dict[str, Any]:
    """`inspect --format json`, with docker's keys where it has them; what is empty is left out."""
    whole = {
        "Name": facts["name"],
        "Ref": facts["id"],
        "Context": facts["context"],
        "Dockerfile": facts["dockerfile"],
        "Target": facts["target"],
        "Platform": facts["platforms"],
        "StartedAt": _moment(facts["started"]),
        "CompletedAt": _moment(facts["ended"]),
        "Duration": round((facts["ended"] - facts["started"]) * 1e9),
        "Status": facts["status"],
        "Error": {"Message": facts["error"]} if facts["error"] else {},
        "NumCompletedSteps": facts["completed"],
        "NumTotalSteps": facts["total"],
        "NumCachedSteps": facts["cached"],
        "BuildArgs": _pairs(facts["build_args"]),
        "Labels": _pairs(facts["labels"]),
        "Tags": facts["tags"],
        "Images": facts["images"],
        "Outputs": [dict(zip(("Type", "Dest", "Digest"), each, strict=True)) for each in facts["outputs"]],
        "NumWarnings": facts["warnings"],
    }
    return {key: value for key, value in whole.items() if value not in ("", [], {})}


def _pairs(record: dict[str, str]) -> list[dict[str, str]]:
    return [{"Name": key, "Value": value} for key, value in record.items()]


def _pretty(facts: dict[str, Any]) -> str:
    share = f" ({facts['cached'] * 100 // facts['total']}% cached)" if facts["total"] else ""
    lines = [
        ("Name", facts["name"]),
        ("Ref", facts["id"]),
        ("Context", facts["context"]),
        ("Dockerfile", facts["dockerfile"]),
        ("Target", facts["target"]),
        ("Platforms", ", ".join(facts["platforms"])),
        ("Tags", ", ".join(facts["tags"])),
        None,
        ("Started", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(facts["started"]))),
        ("Duration", _duration(facts)),
        ("Status", facts["status"]),
        ("Error", facts["error"]),
        ("Build Steps", f"{facts['completed']}/{facts['total']}{share}"),
        ("Warnings", facts["warnings"] or ""),
        ("Images", ", ".join(facts["images"])),
    ]
    text = "".join(
        "\n" if line is None else f"{line[0] + ':':<13} {line[1]}\n"
        for line in lines
        if line is None or line[1]
    )
    for title, record in (("Build Args", facts["build_args"]), ("Labels", facts["labels"])):
        if record:
            text += f"\n{title}:\n" + "".join(f"  {key}={value}\n" for key, value in record.items())
    if facts["outputs"]:
        text += "\nOutputs:\n" + "".join(f"  {' '.join(filter(None, each))}\n" for each in facts["outputs"])
    return text + f"\nIts log: pipe builds logs {facts['id']}\n"


def _add_buildx() -> None:
    from pipeline.cli.bake import bake
    from pipeline.cli.build_command import build

    for name, command in (("build", build), ("bake", bake), ("history", builds)):
        buildx.add_command(command, name)


_add_buildx()
