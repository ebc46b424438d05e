"""`pipe schema`."""

from __future__ import annotations

import json

import click


@click.command()
def schema() -> int:
    """Print the JSON Schema of pipe.yaml, for editors."""
    from pipeline.config.pipefile import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
    return 0
