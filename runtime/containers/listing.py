"""Look at containers from outside: filters of `ps`, processes, disk use, what differs from the image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from runtime.containers.container import Container
from runtime.errors import InvalidInput, did_you_mean

if TYPE_CHECKING:
    from runtime.containers.records import ContainerRecords
    from runtime.sandbox.paths import Root
    from runtime.store.store import Store

FILTERS = (
    "id",
    "name",
    "label",
    "status",
    "exited",
    "ancestor",
    "health",
    "volume",
    "network",
    "before",
    "since",
    "publish",
    "expose",
)


def matches(container: Container, filters: Iterable[tuple[str, str]], records: ContainerRecords) -> bool:
    """Docker's rule: values of one filter are alternatives, different filters all have to hold."""
    wanted: dict[str, list[str]] = {}
    for name, value in filters:
        if name not in FILTERS:
            raise InvalidInput(
                f"unknown filter {name!r}", hint=did_you_mean(name, FILTERS) or ", ".join(FILTERS)
            )
        wanted.setdefault(name, []).append(value)
    for name, values in wanted.items():
        tests = [_holds(container, name, value, records) for value in values]
        if not (all(tests) if name == "label" else any(tests)):
            return False
    return True


def _holds(container: Container, name: str, value: str, records: ContainerRecords) -> bool:
    match name:
        case "id":
            return container.id.startswith(value)
        case "name":
            return value.removeprefix("/") in container.name
        case "label":
            key, equals, wanted = value.partition("=")
            labels = {**container.image_config.labels, **container.spec.labels}
            return key in labels and (not equals or labels[key] == wanted)
        case "status":
            return container.state.status == value
        case "exited":
            return container.state.status == "exited" and str(container.state.code) == value
        case "ancestor":
            return value in (container.image_name, container.image) or container.image.startswith(
                f"sha256:{value}"
            )
        case "health":
            return (container.health or "none") == value
        case "volume":
            return any(value in (mount.volume, mount.target) for mount in container.mounts)
        case "network":
            own = container.spec.networks
            names = [attachment.network for attachment in own] if own else [container.spec.network_mode]
            return value in names
        case "before":
            return container.created < records.get(value).created
        case "since":
            return container.created > records.get(value).created
        case _:
            ports = {str(port.container_port) for port in container.spec.ports}
            exposed = {
                text.partition("/")[0]
                for text in (*container.image_config.exposed_ports, *container.spec.expose)
            }
            return value.partition("/")[0] in (ports if name == "publish" else ports | exposed)


def processes(container: Container) -> Sequence[dict[str, str]]:
    """What /proc of the host says about the processes in its control group."""
    from runtime import cgroups

    found = []
    for pid in sorted(cgroups.processes(container.cgroup)):
        try:
            found.append(_process(pid))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return found


def _process(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/stat", "rb") as file:
        before, _, after = file.read().rpartition(b")")
    fields = after.split()
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read().rstrip(b"\0").split(b"\0")
    ticks = os.sysconf("SC_CLK_TCK")
    seconds = (int(fields[11]) + int(fields[12])) // ticks
    return {
        "UID": str(os.stat(f"/proc/{pid}").st_uid),
        "PID": str(pid),
        "PPID": fields[1].decode(),
        "STATE": fields[0].decode(),
        "TIME": f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}",
        "CMD": b" ".join(words).decode("utf-8", "replace")
        or f"[{before.partition(b'(')[2].decode('utf-8', 'replace')}]",
    }


def disk_use(container: Container) -> int:
    """Bytes its own layer and log take on the disk."""
    total = 0
    for directory, _, files in os.walk(container.directory):
        for name in files:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def changes(store: Store, container: Container) -> Sequence[tuple[str, str]]:
    """What its own layer adds (A), changes (C) or hides (D), by path."""
    from runtime.containers.roots import merged, own_tree, tree_directory
    from runtime.store.hiding import OVERLAY

    if own_tree(store, container, make=False):
        return _changes_of_tree(tree_directory(container))
    upper = os.path.join(container.directory, "upper")
    lowers = store.snapshots.lowers(container.snapshot) if container.snapshot else ()
    found: list[tuple[str, str]] = []
    with merged(store, lowers) as below:
        for directory, directories, files in os.walk(upper):
            for name in (*directories, *files):
                path = os.path.join(directory, name)
                inside = path[len(upper) :]
                status = os.lstat(path)
                if OVERLAY.is_whiteout(status):
                    found.append(("D", inside))
                else:
                    found.append(("C" if _exists(below, inside) else "A", inside))
    return sorted(found, key=lambda change: change[1])


def _changes_of_tree(directory: str) -> Sequence[tuple[str, str]]:
    """The same of a tree of the container's own. As in a layer, a directory around a change is changed."""
    from runtime.store.changes import Changes, Kind
    from runtime.store.copies import notes_of
    from runtime.store.merging import ENTRIES

    root, noted = notes_of(directory)
    words = {Kind.MADE: "A", Kind.REPLACED: "C", Kind.TOUCHED: "C", Kind.GONE: "D"}
    found: dict[bytes, str] = {}
    for change in Changes(root, noted).found:
        parent, _, name = change.path.rpartition(b"/")
        is_new = parent not in noted or name not in noted[parent][ENTRIES]
        found[change.path] = words.get(change.kind, "A" if is_new else "C")
        while parent and parent not in found:
            found[parent] = "C"
            parent = parent.rpartition(b"/")[0]
    return [(found[path], "/" + os.fsdecode(path)) for path in sorted(found) if path]


def _exists(root: Root, path: str) -> bool:
    try:
        os.close(root.find(path, os.O_PATH | os.O_NOFOLLOW))
    except OSError:
        return False
    return True
