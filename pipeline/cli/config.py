"""`pipe config` and `pipe version`."""

from __future__ import annotations

import json

import click

from pipeline.cli.session import Session


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def config(session: Session, as_json: bool) -> None:
    """Show the settings in force."""
    from pipeline.settings import TABLE, describe

    values = describe(session.settings)
    if as_json:
        click.echo(json.dumps(dict(values), indent=2))
        return
    variables = {setting.name: setting.variable for setting in TABLE}
    width = max(len(name) for name, _ in values)
    for name, value in values:
        click.echo(f"{name:{width}}  {value or '-':30}  {variables[name]}")


@click.command()
def version() -> None:
    """Show the version."""
    from importlib.metadata import version as installed

    click.echo(f"pipe {installed('pipe-ci')}")
