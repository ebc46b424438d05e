"""Containers as text: the table of `ps`, what `inspect` prints, statistics, times and sizes as people write them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from runtime.ages import age
from runtime.containers.status_text import status_text
from runtime.errors import InvalidInput, NotFound, PipeError

if TYPE_CHECKING:
    from pipeline.services import Services
    from runtime.containers.container import Container

_HEADINGS = {
    "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "RunningFor": "CREATED", "Status": "STATUS",
    "Ports": "PORTS", "Names": "NAMES", "Size": "SIZE",
}  # fmt: skip


def table(rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, three blanks apart."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


# --- ps -------------------------------------------------------------------------------------------------------------


def show_table(
    services: Services, found: Sequence[Container], form: str, *, no_trunc: bool, size: bool
) -> None:
    records = [_record(services, container, no_trunc, size) for container in found]
    if form == "json":
        for record in records:
            click.echo(json.dumps(record))
        return
    heads = form.startswith("table")
    template = form.removeprefix("table").strip()
    if template:
        lines = [fill(template, _HEADINGS | {"State": "STATE", "Labels": "LABELS"})] if heads else []
        for line in (*lines, *(fill(template, record) for record in records)):
            click.echo(line.replace("\\t", "\t"))
        return
    columns = [name for name in _HEADINGS if size or name != "Size"]
    rows = [[str(record[name]) for name in columns] for record in records]
    click.echo(table([[_HEADINGS[name] for name in columns], *rows]))


def _record(services: Services, container: Container, no_trunc: bool, size: bool) -> dict[str, Any]:
    from runtime.containers.config import argv_of

    command = " ".join(argv_of(container.spec, container.image_config))
    short = command if no_trunc or len(command) <= 20 else command[:19] + "…"
    ports = services.networks.published(container.id) if container.running else ()
    record = {
        "ID": container.id if no_trunc else container.short_id,
        "Image": container.image_name,
        "Command": json.dumps(short, ensure_ascii=False),
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(container.created)),
        "RunningFor": f"{age(time.time() - container.created)} ago",
        "Status": status_text(container),
        "State": container.state.status,
        "Ports": ", ".join(f"{p.host_ip}:{p.host_port}->{p.container_port}/{p.protocol}" for p in ports),
        "Names": container.name,
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(container.spec.labels.items())),
        "Mounts": ",".join(mount.volume or mount.source for mount in container.mounts),
    }
    if size:
        from runtime.containers.listing import disk_use

        record["Size"] = size_text(disk_use(container))
    return record


def size_text(count: float) -> str:
    """`1.2MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g}{unit}"
        count /= 1000
    return f"{count:.4g}TB"


# --- inspect --------------------------------------------------------------------------------------------------------


def show_inspected(services: Services, names: Sequence[str], form: str, *, size: bool, kind: str) -> int:
    """All that was found, and an error for each that was not."""
    from pipeline.ui.errors import show_error

    found, failed = [], 0
    for name in names:
        try:
            found.append(_inspected(services, name, size, kind))
        except PipeError as error:
            show_error(error)
            failed = 1
    if form and form != "json":
        for record in found:
            click.echo(fill(form, record))
    else:
        click.echo(json.dumps(found, indent=4, ensure_ascii=False))
    return failed


def _inspected(services: Services, name: str, size: bool, kind: str) -> dict[str, Any]:
    from runtime.containers.inspect import container_record, volume_record
    from runtime.images.inspect import inspect as image_record

    if kind in ("", "container"):
        container = services.containers.find(name)
        if container is not None:
            return container_record(services.networks, container, size)
        if kind:
            services.containers.get(name)
    if kind in ("", "image"):
        image = services.images.find(name)
        if image is not None:
            return image_record(services.images, image)
    if kind in ("", "volume"):
        volume = services.volumes.find(name)
        if volume is not None:
            return volume_record(volume)
    raise NotFound(
        f"no such object: {name}", hint="`pipe ps -a`, `pipe images` and `pipe volume ls` list them"
    )


_FIELD = re.compile(r"\{\{\s*(json\s+)?((?:\.[A-Za-z0-9_]+)+|\.)\s*\}\}")


def fill(template: str, record: Any) -> str:
    """The simple half of Go's templates: `{{.State.Status}}` and `{{json .Config}}`."""
    if "{{" in _FIELD.sub("", template):
        raise InvalidInput(
            f"format {template!r} is not supported", hint="use {{.Field}}, {{json .Field}} or json"
        )

    def value(match: re.Match[str]) -> str:
        found = record
        for key in match[2].strip(".").split("."):
            if key:
                if not isinstance(found, dict) or key not in found:
                    raise InvalidInput(f"no field {match[2]} in format {template!r}")
                found = found[key]
        if match[1]:
            return json.dumps(found, ensure_ascii=False)
        return str(found).lower() if isinstance(found, bool) else str(found)

    return _FIELD.sub(value, template)


# --- statistics and times -------------------------------------------------------------------------------------------


def show_stats(services: Services, names: Sequence[str], form: str) -> None:
    containers = services.containers
    found = [containers.get(name) for name in names] or list(containers.list())
    rows = [["CONTAINER ID", "NAME", "CPU", "MEM USAGE / LIMIT", "PIDS"]]
    for container in found:
        if not container.state.pid:
            continue
        usage = containers.stats(container.id)
        if form == "json":
            from dataclasses import asdict

            click.echo(json.dumps({"ID": container.short_id, "Name": container.name} | asdict(usage)))
            continue
        limit = size_text(usage.memory_limit) if usage.memory_limit else "-"
        cpu = f"{usage.cpu_nanoseconds / 1e9:.2f}s"
        rows.append(
            [container.short_id, container.name, cpu, f"{size_text(usage.memory)} / {limit}", str(usage.pids)]
        )
    if form != "json":
        click.echo(table(rows))


def parse_filter(text: str) -> tuple[str, str]:
    """`--filter NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"filter {text!r} is not NAME=VALUE")
    return name, value


def parse_moment(text: str) -> float:
    """Seconds since 1970 of `2026-01-02T03:04:05Z`, `1700000000.5` or `10m` (ago)."""
    import datetime

    from pipeline.cli.run_values import seconds

    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    try:
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return time.time() - seconds("since", text)
    return moment.timestamp()
