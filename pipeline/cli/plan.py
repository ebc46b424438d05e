"""`pipe plan`: what would run, and why. Nothing is opened or changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.session import Session

if TYPE_CHECKING:
    from pipeline.plan import Node, Plan


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("-f", "--file", default="", help="The pipeline file (default: pipe.yaml here or above).")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set a variable.")
@click.option("--build", "kind", flag_value="build", help="What `pipe build` would do.")
@click.option(
    "--test", "kind", flag_value="test", default="test", help="What `pipe test` would do (the default)."
)
@click.option("--deploy", "kind", flag_value="deploy", help="What `pipe deploy` would do.")
@click.option("--why", is_flag=True, help="Say why each node is in, or left out.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--dot", is_flag=True, help="As a Graphviz graph.")
@click.pass_obj
def plan(
    session: Session,
    names: tuple[str, ...],
    file: str,
    env: tuple[str, ...],
    kind: str,
    why: bool,
    as_json: bool,
    dot: bool,
) -> int:
    """Show what would run, in which order, and why."""
    from pipeline.cli.test import parse_env
    from pipeline.commands import KINDS
    from pipeline.loaded import load
    from pipeline.plan import Goal, plan_run
    from pipeline.settings import environment

    loaded = load(environment(), file=file, given=parse_env(env))
    if kind == "deploy" and not names:
        names = tuple(spec.name for spec in loaded.spec.environments)
    found = plan_run(loaded.spec, Goal(kind=KINDS[kind], names=names), loaded.facts)
    loaded.surroundings.git.close()
    if as_json:
        click.echo(
            json.dumps(
                {"project": loaded.spec.name, "nodes": [_record(node) for node in found.nodes]}, indent=2
            )
        )
    elif dot:
        click.echo(_dot(found))
    else:
        click.echo("\n".join(_line(node, why) for node in found.nodes) or "nothing to do")
    return 0


def _record(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "kind": str(node.kind),
        "needs": [{"node": edge.node, "optional": edge.optional} for edge in node.needs],
        "matrix": dict(node.matrix),
        "reason": node.reason,
        "runs": not node.skip,
        "condition": node.condition,
        "line": node.subject.span.line,
    }


def _line(node: Node, why: bool) -> str:
    needs = ", ".join(
        edge.node.partition("/")[2] if edge.node.startswith("stage/") else edge.node for edge in node.needs
    )
    line = f"{node.kind:6} {node.title}"
    if node.skip:
        return f"{line}  - left out: {node.skip}"
    if why:
        reason = "; ".join(filter(None, (node.reason, node.condition)))
        line += f"  - {reason}"
    return f"{line}  <- {needs}" if needs else line


def _dot(plan: Plan) -> str:
    lines = ["digraph plan {", "  rankdir=LR;"]
    for node in plan.nodes:
        lines.append(f"  {json.dumps(node.name)} [style={'dashed' if node.skip else 'solid'}];")
        lines += [f"  {json.dumps(edge.node)} -> {json.dumps(node.name)};" for edge in node.needs]
    return "\n".join([*lines, "}"])
