"""The flags of `run` and `create`: one table, read by `flags`.

All of Docker's are here; those that only Windows has are known and refused with a reason. Values stay strings, what
they mean is `run_values` and `run_spec`. Flags end at the image: what follows belongs to the container.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.cli.flags import Flag, Flags
from registry_client.tuples import NamedTuple
from runtime.errors import InvalidInput

_WINDOWS = "only Windows containers have it"

TABLE = (
    Flag("add-host", "many", "a further line of /etc/hosts; the address may be host-gateway", metavar="NAME:ADDRESS"),
    Flag("annotation", "many", "an annotation of the OCI config", metavar="NAME=VALUE"),
    Flag("attach", "many", "attach to stdin, stdout or stderr", "a", "STREAM"),
    Flag("blkio-weight", "one", "relative share of block IO, 10 to 1000", metavar="N"),
    Flag("blkio-weight-device", "many", "the same for one device", metavar="PATH:N"),
    Flag("cap-add", "many", "add a capability, or ALL", metavar="NAME"),
    Flag("cap-drop", "many", "drop a capability, or ALL", metavar="NAME"),
    Flag("cgroup-parent", "one", "the cgroup to live below", metavar="PATH"),
    Flag("cgroupns", "one", "the cgroup namespace: host or private", metavar="MODE"),
    Flag("cidfile", "one", "write the id to a new file", metavar="FILE"),
    Flag("cpu-count", "refused", _WINDOWS),
    Flag("cpu-percent", "refused", _WINDOWS),
    Flag("cpu-period", "one", "the CFS period in microseconds", metavar="N"),
    Flag("cpu-quota", "one", "the CFS quota in microseconds", metavar="N"),
    Flag("cpu-rt-period", "one", "the real-time period in microseconds", metavar="N"),
    Flag("cpu-rt-runtime", "one", "the real-time runtime in microseconds", metavar="N"),
    Flag("cpu-shares", "one", "relative share of the processors", "c", "N"),
    Flag("cpus", "one", "how many processors, with a fraction", metavar="N"),
    Flag("cpuset-cpus", "one", "which processors", metavar="0-3,5"),
    Flag("cpuset-mems", "one", "which memory nodes", metavar="0-3,5"),
    Flag("detach", "switch", "do not wait; print the id", "d"),
    Flag("detach-keys", "one", "the keys that detach", metavar="KEYS"),
    Flag("device", "many", "a device of the host", metavar="PATH[:PATH[:rwm]]"),
    Flag("device-cgroup-rule", "many", "a rule for device access", metavar="RULE"),
    Flag("device-read-bps", "many", "limit reading from a device", metavar="PATH:SIZE"),
    Flag("device-read-iops", "many", "limit reads from a device", metavar="PATH:N"),
    Flag("device-write-bps", "many", "limit writing to a device", metavar="PATH:SIZE"),
    Flag("device-write-iops", "many", "limit writes to a device", metavar="PATH:N"),
    Flag("disable-content-trust", "switch", "accepted for Docker's sake; signatures are checked by policy"),
    Flag("dns", "many", "a name server", metavar="ADDRESS"),
    Flag("dns-option", "many", "an option of resolv.conf", metavar="OPTION"),
    Flag("dns-search", "many", "a search domain", metavar="DOMAIN"),
    Flag("domainname", "one", "the NIS domain name", metavar="NAME"),
    Flag("entrypoint", "one", "instead of the image's entrypoint", metavar="COMMAND"),
    Flag("env", "many", "an environment variable; a bare name takes ours", "e", "NAME[=VALUE]"),
    Flag("env-file", "many", "a file of environment variables", metavar="FILE"),
    Flag("expose", "many", "a port or range the container serves", metavar="PORT"),
    Flag("gpus", "one", "not supported", metavar="REQUEST"),
    Flag("group-add", "many", "a further group", metavar="GROUP"),
    Flag("health-cmd", "one", "the command that tells health", metavar="COMMAND"),
    Flag("health-interval", "one", "between two probes (30s)", metavar="TIME"),
    Flag("health-retries", "one", "failures in a row until unhealthy (3)", metavar="N"),
    Flag("health-start-interval", "one", "between two probes in the start period (5s)", metavar="TIME"),
    Flag("health-start-period", "one", "failures do not count for so long (0s)", metavar="TIME"),
    Flag("health-timeout", "one", "the longest a probe may take (30s)", metavar="TIME"),
    Flag("help", "switch", "show this"),
    Flag("hostname", "one", "the host name (the short id)", "h", "NAME"),
    Flag("init", "switch", "a small init as pid 1 that forwards signals and reaps"),
    Flag("interactive", "switch", "keep stdin open", "i"),
    Flag("io-maxbandwidth", "refused", _WINDOWS),
    Flag("io-maxiops", "refused", _WINDOWS),
    Flag("ip", "one", "the IPv4 address", metavar="ADDRESS"),
    Flag("ip6", "one", "the IPv6 address", metavar="ADDRESS"),
    Flag("ipc", "one", "the IPC namespace: private, shareable, none, host, container:NAME", metavar="MODE"),
    Flag("isolation", "one", "only `default` on Linux", metavar="KIND"),
    Flag("kernel-memory", "refused", "the kernel has given it up in Linux 5.4"),
    Flag("label", "many", "a label", "l", "NAME[=VALUE]"),
    Flag("label-file", "many", "a file of labels", metavar="FILE"),
    Flag("link", "many", "know a container of the default network by name", metavar="NAME[:ALIAS]"),
    Flag("link-local-ip", "many", "a link-local address", metavar="ADDRESS"),
    Flag("log-driver", "one", "json-file, local or none", metavar="DRIVER"),
    Flag("log-opt", "many", "max-size, max-file", metavar="NAME=VALUE"),
    Flag("mac-address", "one", "the MAC address", metavar="ADDRESS"),
    Flag("memory", "one", "memory limit", "m", "SIZE"),
    Flag("memory-reservation", "one", "soft memory limit", metavar="SIZE"),
    Flag("memory-swap", "one", "memory and swap together; -1 is unlimited", metavar="SIZE"),
    Flag("memory-swappiness", "one", "0 to 100", metavar="N"),
    Flag("mount", "many", "type=bind|volume|tmpfs|image,source=,target=,…", metavar="MOUNT"),
    Flag("name", "one", "the container's name", metavar="NAME"),
    Flag("network", "many", "a network, none, host or container:NAME", metavar="NETWORK"),
    Flag("network-alias", "many", "a further name on the network", metavar="NAME"),
    Flag("no-healthcheck", "switch", "without the image's health check"),
    Flag("oom-kill-disable", "switch", "let it wait for memory instead"),
    Flag("oom-score-adj", "one", "-1000 to 1000", metavar="N"),
    Flag("pid", "one", "the PID namespace: host or container:NAME", metavar="MODE"),
    Flag("pids-limit", "one", "how many processes; -1 is unlimited", metavar="N"),
    Flag("platform", "one", "os/arch of the image", metavar="PLATFORM"),
    Flag("privileged", "switch", "without isolation of devices, capabilities and paths"),
    Flag("publish", "many", "publish a port on the host", "p", "[[IP:]PORT:]PORT[/PROTO]"),
    Flag("publish-all", "switch", "publish every exposed port", "P"),
    Flag("pull", "one", "always, missing or never", metavar="WHEN"),
    Flag("quiet", "switch", "do not show the pull", "q"),
    Flag("read-only", "switch", "the root is read-only"),
    Flag("restart", "one", "no, always, unless-stopped, on-failure[:N] or on-unhealthy[:N]", metavar="POLICY"),
    Flag("rm", "switch", "remove the container and its anonymous volumes when it ends"),
    Flag("runtime", "one", "crun, runc or a path instead of the built-in sandbox", metavar="RUNTIME"),
    Flag("security-opt", "many", "seccomp=, apparmor=, label=, no-new-privileges, systempaths=unconfined", metavar="OPTION"),
    Flag("shm-size", "one", "the size of /dev/shm (64m)", metavar="SIZE"),
    Flag("sig-proxy", "switch", "hand signals on to the process (yes)"),
    Flag("stop-signal", "one", "the signal of `stop`", metavar="SIGNAL"),
    Flag("stop-timeout", "one", "seconds from the stop signal to the kill", metavar="N"),
    Flag("storage-opt", "many", "not supported", metavar="OPTION"),
    Flag("sysctl", "many", "a kernel parameter of the namespaces", metavar="NAME=VALUE"),
    Flag("tmpfs", "many", "a tmpfs", metavar="PATH[:OPTIONS]"),
    Flag("tty", "switch", "a terminal", "t"),
    Flag("ulimit", "many", "a resource limit", metavar="NAME=SOFT[:HARD]"),
    Flag("use-api-socket", "switch", "not supported: there is no daemon whose socket could be passed"),
    Flag("user", "one", "name or uid, with :group", "u", "USER"),
    Flag("userns", "one", "only `host`", metavar="MODE"),
    Flag("uts", "one", "the UTS namespace: host", metavar="MODE"),
    Flag("volume", "many", "a volume or a directory of the host", "v", "[SOURCE:]TARGET[:OPTIONS]"),
    Flag("volume-driver", "one", "only `local`", metavar="DRIVER"),
    Flag("volumes-from", "many", "the mounts of another container", metavar="NAME[:ro]"),
    Flag("workdir", "one", "the directory to start in", "w", "PATH"),
)  # fmt: skip

_FLAGS = Flags(
    "pipe run",
    TABLE,
    aliases={"net": "network", "net-alias": "network-alias", "dns-opt": "dns-option"},
)


class Given:
    """The flags of one command line, as strings."""

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}

    def add(self, flag: Flag, value: str) -> None:
        if flag.kind == "many":
            self._values.setdefault(flag.name, []).append(value)
        else:
            self._values[flag.name] = [value]

    def has(self, name: str) -> bool:
        return name in self._values

    def one(self, name: str, default: str = "") -> str:
        return self._values.get(name, [default])[-1]

    def many(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def on(self, name: str, default: bool = False) -> bool:
        return self.one(name, "true" if default else "false") == "true"


class CommandLine(NamedTuple):
    flags: Given
    image: str  # "" when only --help was asked for
    command: tuple[str, ...]


def parse_command_line(arguments: Sequence[str]) -> CommandLine:
    """Flags up to the image, the image, and its command."""
    given = Given()
    words = _FLAGS.read(arguments, given.add, mixed=False)
    if given.on("help"):
        return CommandLine(given, "", ())
    if not words:
        raise InvalidInput("no image given", hint="`pipe run [FLAGS] IMAGE [COMMAND …]`")
    return CommandLine(given, words[0], words[1:])


def help_text(command: str, summary: str) -> str:
    """What `--help` prints."""
    lines = [f"Usage: pipe {command} [FLAGS] IMAGE [COMMAND] [ARG...]", "", f"  {summary}", "", "Flags:"]
    for flag in TABLE:
        if flag.kind == "refused":
            continue
        left = f"-{flag.short}, " if flag.short else "    "
        left += f"--{flag.name}" + ("" if flag.kind == "switch" else f" {flag.metavar}")
        lines.append(f"  {left:<44} {flag.help}" if len(left) < 44 else f"  {left}\n{'':47}{flag.help}")
    return "\n".join(lines)
