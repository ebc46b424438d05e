"""What runs in an environment, compared with what was deployed there (drift)."""

from __future__ import annotations

from typing import Any

from pipeline.deploy.records import Deployment
from pipeline.deploy.release import COMPOSE
from pipeline.image import short_id


def status_of(containers: Any, current: Deployment | None, environment: str) -> dict[str, object]:
    """Plain values, for the table and for JSON. `containers` is the runtime's."""
    if current is None:
        return {"environment": environment, "state": "nothing deployed", "number": 0, "services": []}
    release = current.release
    found = containers.list(everything=True, filters=[("label", f"{COMPOSE}project={release.project}")])
    by_name = {container.name: container for container in found}
    rows: list[dict[str, str]] = []
    for service in release.services:
        for index in range(1, service.replicas + 1):
            name = service.spec.name or f"{release.project}-{service.name}-{index}"
            container = by_name.pop(name, None)
            rows.append(_row(name, container, service.image, service.config_hash))
    rows += [_row(name, container, "", "") for name, container in by_name.items()]
    drifted = [row for row in rows if row["drift"]]
    return {
        "environment": environment,
        "state": "as deployed" if not drifted else "differs from what was deployed",
        "number": current.number,
        "run": current.run,
        "services": rows,
    }


def _row(name: str, container: Any, image: str, config_hash: str) -> dict[str, str]:
    if container is None:
        return {"container": name, "image": short_id(image), "state": "missing", "drift": "missing"}
    state = container.state.status + (f" ({container.health})" if container.health else "")
    drift = ""
    if not image:
        drift = "not part of the release"
    elif container.image != image or container.spec.labels.get(COMPOSE + "config-hash") != config_hash:
        drift = "changed"
    elif not container.running and container.state.code:
        drift = "stopped"
    return {
        "container": name,
        "image": short_id(container.image),
        "state": f"{state}{f', {drift}' if drift else ''}",
        "drift": drift,
    }
