"""What a container is asked to be. The nouns are Docker's; times are seconds, sizes bytes, nothing is a string that could be a value."""

from __future__ import annotations

from collections.abc import Mapping

from registry_client.oci.config import Healthcheck
from registry_client.values import field, frozen


@frozen(kw_only=True)
class Mount:
    """`type` is bind, volume, tmpfs or image. `source`: an absolute host path, a volume name ("" is an anonymous volume), an image, or ""."""

    type: str
    target: str
    source: str = ""
    readonly: bool = False
    propagation: str = "rprivate"
    copy_up: bool = True  # volume: fill a new one from the image
    subpath: str = ""
    size: int = 0  # tmpfs
    mode: int = 0o1777  # tmpfs
    options: tuple[str, ...] = ()  # further mount options as mount(8) knows them: noexec, nosuid, uid=1000
    create_source: bool = False  # -v makes a missing host directory, --mount does not
    copy_on_write: bool = False  # bind: writes go to the container's own layer (a stage's checkout)


@frozen(kw_only=True)
class PortBinding:
    """Container port published on the host; `host_port` 0 is "any free one"."""

    container_port: int
    protocol: str = "tcp"
    host_port: int = 0
    host_ip: str = "0.0.0.0"


@frozen(kw_only=True)
class NetworkAttachment:
    network: str
    aliases: tuple[str, ...] = ()
    ipv4: str = ""
    mac: str = ""
    ipv6: str = ""
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    priority: int = 0  # the default gateway comes from the network with the highest


@frozen
class Throttle:
    """At most `rate` bytes (bps) or operations (iops) a second on a device; `kind` is read-bps, write-bps, read-iops or write-iops."""

    kind: str
    device: str
    rate: int


@frozen(kw_only=True)
class Limits:
    """0 or "" is "no limit". `cpus` in cores; `memory_swap` is memory plus swap, -1 unlimited."""

    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    cpus: float = 0.0
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids: int = 0
    shm_size: int = 64 << 20
    oom_score_adj: int = 0
    oom_kill_disable: bool = False
    swappiness: int = -1  # -1: the host's
    cpu_rt_period: int = 0
    cpu_rt_runtime: int = 0
    blkio_weight: int = 0
    blkio_device_weights: tuple[tuple[str, int], ...] = ()  # (device path, weight)
    throttles: tuple[Throttle, ...] = ()


@frozen(kw_only=True)
class Rlimit:
    name: str  # "nofile"
    soft: int
    hard: int


@frozen(kw_only=True)
class RestartPolicy:
    name: str = "no"  # no, always, unless-stopped, on-failure, on-unhealthy
    maximum: int = 0


@frozen(kw_only=True)
class ContainerSpec:
    """`None` for `command`, `entrypoint`, `user`, `working_dir`, `healthcheck` is "as the image says"."""

    image: str  # a reference, a name or an image id
    name: str = ""
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()  # "NAME=value"
    user: str | None = None
    groups: tuple[str, ...] = ()
    working_dir: str | None = None
    hostname: str = ""
    domainname: str = ""
    tty: bool = False
    stdin: bool = False
    init: bool = False
    mounts: tuple[Mount, ...] = ()
    read_only: bool = False
    network_mode: str = "bridge"  # bridge, none, host, container:<id>, or "" when `networks` is used
    networks: tuple[NetworkAttachment, ...] = ()
    ports: tuple[PortBinding, ...] = ()
    expose: tuple[str, ...] = ()
    publish_all: bool = False  # every exposed port on a free host port
    links: tuple[tuple[str, str], ...] = ()  # (container, alias), the old way of naming a neighbour
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()  # (name, address or "host-gateway")
    limits: Limits = field(default_factory=Limits)
    rlimits: tuple[Rlimit, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict, hash=False)
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    no_new_privileges: bool = False
    seccomp: str = "default"  # default, unconfined, or a path to a JSON profile
    unmask_paths: bool = False  # --security-opt systempaths=unconfined
    apparmor: str = ""
    selinux: tuple[str, ...] = ()  # the label= options
    devices: tuple[tuple[str, str, str], ...] = ()  # (host path, container path, "rwm")
    device_rules: tuple[str, ...] = ()  # "c 42:* rmw"
    volumes_from: tuple[str, ...] = ()  # "container[:ro]"
    pid_mode: str = ""  # "", host, container:<id>
    ipc_mode: str = ""  # "", host, private, shareable, none, container:<id>
    uts_mode: str = ""  # "", host
    userns_mode: str = ""  # "", host
    cgroupns_mode: str = ""  # "", host, private
    cgroup_parent: str = ""
    healthcheck: Healthcheck | None = None
    no_healthcheck: bool = False
    stop_signal: str = ""
    stop_timeout: float = 10.0
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    auto_remove: bool = False
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    platform: str = ""  # "" is this host's
    log_driver: str = "json-file"
    log_options: Mapping[str, str] = field(default_factory=dict, hash=False)
    runtime: str = ""  # "" is the native sandbox; crun, runc or a path to an OCI runtime
    # Ours. A container with `owner_bound` does not outlive the process that started it, not even after its kill -9.
    owner_bound: bool = False


@frozen(kw_only=True)
class ExecSpec:
    """A further process in a running container."""

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str | None = None
    working_dir: str | None = None
    tty: bool = False
    stdin: bool = False
    privileged: bool = False


@frozen(kw_only=True)
class ExitStatus:
    """How a process ended. `code` is what a shell would say: 128 + n for signal n, 137 for a memory kill, 125…127 for failed starts."""

    code: int
    oom_killed: bool = False
    error: str = ""
