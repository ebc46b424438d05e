"""What a container is asked to be, as a pipe.yaml or compose file says it: the keys stages, services and deployments share.

Values only. Nothing is resolved here: paths are as written (relative to the file's directory), volume names are the
file's own, images are names of `images:` or references. `pipeline.containers` turns it into a runtime ContainerSpec.
"""

from __future__ import annotations

from pipeline.conditions import ALWAYS, Condition
from registry_client.oci.config import Healthcheck
from registry_client.values import field, frozen
from runtime.containers.spec import Limits, Mount, PortBinding, RestartPolicy, Rlimit
from runtime.spans import Source, Span

NOWHERE = Span(Source(""), 1)
Pairs = tuple[tuple[str, str], ...]


@frozen(kw_only=True)
class ContainerKeys:
    """`None` for command, entrypoint, user, working_dir is "as the image says"; an env value of None is "from outside, if set"."""

    image: str = ""
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: tuple[tuple[str, str | None], ...] = ()
    env_file: tuple[EnvFile, ...] = ()
    user: str | None = None
    groups: tuple[str, ...] = ()
    working_dir: str | None = None
    hostname: str = ""
    domainname: str = ""
    platform: str = ""
    pull_policy: str = "missing"
    tty: bool = False
    stdin_open: bool = False
    init: bool = False
    volumes: tuple[Mount, ...] = ()
    tmpfs: tuple[Mount, ...] = ()
    read_only: bool = False
    network_mode: str = ""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: Pairs = ()
    expose: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_opt: tuple[str, ...] = ()
    devices: tuple[tuple[str, str, str], ...] = ()
    ulimits: tuple[Rlimit, ...] = ()
    sysctls: Pairs = ()
    pid_mode: str = ""
    ipc_mode: str = ""
    shm_size: int = 0
    mem_limit: int = 0
    memswap_limit: int = 0
    mem_reservation: int = 0
    cpus: float = 0.0
    cpu_shares: int = 0
    cpuset: str = ""
    pids_limit: int = 0
    oom_score_adj: int = 0
    stop_signal: str = ""
    stop_grace_period: float = 10.0
    labels: Pairs = ()
    logging: Logging | None = None
    runtime: str = ""

    def limits(self, deploy: DeployKeys | None = None) -> Limits:
        """Compose's two ways to limit, the newer one first."""
        deploy = deploy or DeployKeys()
        return Limits(
            memory=deploy.memory or self.mem_limit,
            memory_swap=self.memswap_limit,
            memory_reservation=deploy.memory_reservation or self.mem_reservation,
            cpus=deploy.cpus or self.cpus,
            cpu_shares=self.cpu_shares,
            cpuset_cpus=self.cpuset,
            pids=deploy.pids or self.pids_limit,
            shm_size=self.shm_size or Limits().shm_size,
            oom_score_adj=self.oom_score_adj,
        )


@frozen
class EnvFile:
    path: str
    required: bool = True
    raw: bool = False
    span: Span = NOWHERE


@frozen
class Logging:
    driver: str = "json-file"
    options: Pairs = ()


@frozen
class Dependency:
    """`condition` is started, healthy or completed (Compose's service_… words without the prefix)."""

    service: str
    condition: str = "started"
    required: bool = True
    restart: bool = False
    span: Span = NOWHERE


@frozen
class NetworkUse:
    name: str
    aliases: tuple[str, ...] = ()
    ipv4_address: str = ""
    mac_address: str = ""


@frozen(kw_only=True)
class DeployKeys:
    """Compose's `deploy:` as far as one host can do it."""

    replicas: int = 1
    cpus: float = 0.0
    memory: int = 0
    memory_reservation: int = 0
    pids: int = 0
    restart: RestartPolicy | None = None


@frozen(kw_only=True)
class ServiceSpec:
    """A container that is there for others: of a stage, or deployed."""

    name: str
    container: ContainerKeys
    span: Span = NOWHERE
    ports: tuple[PortBinding, ...] = ()
    depends_on: tuple[Dependency, ...] = ()
    healthcheck: Healthcheck | None = None
    no_healthcheck: bool = False
    networks: tuple[NetworkUse, ...] = ()
    secrets: tuple[SecretUse, ...] = ()
    restart: RestartPolicy | None = None
    container_name: str = ""
    profiles: tuple[str, ...] = ()
    deploy: DeployKeys = field(default_factory=DeployKeys)
    wait: float = 120.0  # seconds a stage waits for it to become healthy


@frozen(kw_only=True)
class SecretSpec:
    """Where a secret comes from: exactly one of `env`, `file`, `command`. Its value is never part of any spec."""

    name: str
    span: Span = NOWHERE
    env: str = ""
    file: str = ""
    command: tuple[str, ...] = ()
    required: bool = True
    when: Condition = ALWAYS


@frozen
class SecretUse:
    """A secret handed to one container: as a file (default) or, with `env`, in a variable."""

    name: str
    target: str = ""
    env: str = ""
    mode: int = 0o444
    span: Span = NOWHERE
    source: SecretSpec | None = None  # given on the spot; else `name` is an entry of `secrets:`
