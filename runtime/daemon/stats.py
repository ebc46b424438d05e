"""`GET /containers/{id}/stats`: what a container uses, once or every second (FEATURES E-8)."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable
from typing import Any

from runtime.cancel import Cancel
from runtime.cgroups import Usage
from runtime.containers.container import Container
from runtime.daemon.api import Route
from runtime.daemon.asked import flag
from runtime.daemon.containers import found
from runtime.daemon.engine import Engine
from runtime.daemon.host import read_text
from runtime.daemon.streams import Tell, stream
from runtime.errors import PipeError
from runtime.http.messages import Request, Response

_PAUSE = 1.0
_NEVER = "0001-01-01T00:00:00Z"
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_RECEIVED, _SENT = (
    ("rx_bytes", "rx_packets", "rx_errors", "rx_dropped"),
    ("tx_bytes", "tx_packets", "tx_errors", "tx_dropped"),
)


class StatsRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> Iterable[Route]:
        yield "GET", "/containers/{id}/stats", self.stats

    def stats(self, request: Request) -> Response:
        container = found(self._engine, request.params["id"])
        lasting, once = flag(request, "stream", default=True), flag(request, "one-shot")

        def work(tell: Tell, cancel: Cancel) -> None:
            before = self._sample(container)
            if once and not lasting:
                tell({**before, "preread": _NEVER, "precpu_stats": _cpu(None)})
                return
            while not cancel.wait(_PAUSE):
                now = self._sample(container)
                tell({**now, "preread": before["read"], "precpu_stats": before["cpu_stats"]})
                before = now
                if not lasting:
                    return

        return stream(request, work, self._engine.cancel, at_once=lasting)

    def _sample(self, container: Container) -> dict[str, Any]:
        """One look; zeros for a container that does not run, as docker has it."""
        current = self._engine.containers.find(container.id)
        try:
            usage = self._engine.containers.stats(container.id) if current and current.state.pid else None
        except PipeError:
            usage = None  # it ended meanwhile
        networks = network_record(current.state.pid) if current and usage else {}
        return {
            "id": container.id,
            "name": f"/{container.name}",
            "read": datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
            if usage
            else _NEVER,
            "num_procs": 0,
            "pids_stats": {"current": usage.pids} if usage else {},
            "cpu_stats": _cpu(usage),
            "memory_stats": _memory(usage, self._engine.facts.memory),
            "blkio_stats": {"io_service_bytes_recursive": None, "io_serviced_recursive": None},
            "storage_stats": {},
            "networks": networks,
        }


def _cpu(usage: Usage | None) -> dict[str, Any]:
    if usage is None:
        return {
            "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
            "throttling_data": {},
        }
    return {
        "cpu_usage": {"total_usage": usage.cpu_nanoseconds, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "system_cpu_usage": host_nanoseconds(read_text("/proc/stat")),
        "online_cpus": os.cpu_count() or 1,
        "throttling_data": {
            "periods": 0,
            "throttled_periods": 0,
            "throttled_time": usage.throttled_nanoseconds,
        },
    }


def _memory(usage: Usage | None, host: int) -> dict[str, Any]:
    """`usage` counts the page cache in, and clients take it out again by what `stats` says."""
    if usage is None:
        return {}
    cache = {"total_inactive_file": usage.memory_cache, "inactive_file": usage.memory_cache}
    return {
        "usage": usage.memory,
        "max_usage": usage.memory_peak,
        "limit": usage.memory_limit or host,
        "stats": cache,
    }


def host_nanoseconds(text: str) -> int:
    """What all processors have spent since boot, idle or not: the first seven fields of proc_stat(5)."""
    fields = text.partition("\n")[0].split()[1:8]
    return sum(int(each) for each in fields) * (10**9 // _TICKS_PER_SECOND)


def network_record(pid: int) -> dict[str, dict[str, int]]:
    """What each interface has taken in and sent: proc_pid_net(5)."""
    found: dict[str, dict[str, int]] = {}
    for line in read_text(f"/proc/{pid}/net/dev").splitlines()[2:]:
        name, _, counted = line.partition(":")
        numbers = [int(each) for each in counted.split()]
        if name.strip() != "lo":
            found[name.strip()] = {**dict(zip(_RECEIVED, numbers[0:4])), **dict(zip(_SENT, numbers[8:12]))}
    return found
