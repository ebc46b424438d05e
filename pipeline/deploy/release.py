"""What is to run in an environment: services with their image ids and whole container specs, networks, volumes. Pure but for env files.

A release is complete: applying it again needs no pipe.yaml, so a rollback brings back exactly what was. Values of secrets
are not part of it; they are fetched anew, by the sources it names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.config.container import Dependency, SecretSpec, SecretUse, ServiceSpec
from pipeline.containers import Place, container_spec, filled, merge_variables, read_env_files
from pipeline.plan import service_order
from pipeline.spec import EnvironmentSpec, HealthGate, NetworkSpec, PipelineSpec, VolumeSpec
from registry_client.values import field, frozen, replace
from runtime.containers.spec import ContainerSpec, NetworkAttachment, RestartPolicy
from runtime.containers.spec_json import dump_spec, load_spec

Lookup = Callable[[str], str | None]
# Compose's labels (FEATURES F-10): other tools recognise our projects by them.
COMPOSE = "com.docker.compose."


@frozen(kw_only=True)
class ReleaseService:
    """`spec` has the image id for its image; `config_hash` covers it, so equal hashes mean nothing to do."""

    name: str
    image: str
    reference: str  # what people call the image
    spec: ContainerSpec
    config_hash: str
    replicas: int = 1
    depends_on: tuple[Dependency, ...] = ()
    secrets: tuple[SecretUse, ...] = ()


@frozen(kw_only=True)
class Release:
    project: str  # prefix of all names
    pipeline: str
    environment: str
    services: tuple[ReleaseService, ...]
    networks: tuple[NetworkSpec, ...] = ()
    volumes: tuple[VolumeSpec, ...] = ()
    health: HealthGate = field(default_factory=HealthGate)
    url: str = ""

    @property
    def config_hash(self) -> str:
        record = [[service.name, service.config_hash, service.replicas] for service in self.services]
        return _hash(record)

    def network_name(self, name: str) -> str:
        spec = next((network for network in self.networks if network.name == name), NetworkSpec(name))
        return spec.real_name or (spec.name if spec.external else f"{self.project}_{name}")


def project_of(spec: PipelineSpec, environment: EnvironmentSpec) -> str:
    """`SHOP-STAGING` unless the environment says otherwise: two environments on one host stay apart."""
    return environment.project or f"{spec.name}-{environment.name}".lower().replace(".", "-")


def plan_release(
    spec: PipelineSpec,
    environment: EnvironmentSpec,
    *,
    images: Mapping[str, str],
    lookup: Lookup,
    outside: Mapping[str, str],
    profiles: frozenset[str] = frozenset(),
) -> Release:
    """The release an environment asks for, with these images (ids by the names its services use)."""
    project = project_of(spec, environment)
    declared = {volume.name: volume for volume in environment.volumes}
    names = {
        name: v.real_name or (name if v.external else f"{project}_{name}") for name, v in declared.items()
    }
    place = Place(spec.root, outside, lookup, volume_prefix=f"{project}_", real_volumes=names)
    active = [s for s in environment.services if not s.profiles or profiles.intersection(s.profiles)]
    release = Release(
        project=project,
        pipeline=spec.name,
        environment=environment.name,
        services=(),
        networks=environment.networks,
        volumes=environment.volumes,
        health=filled(environment.health, lookup, environment.health.span),
        url=filled(environment.url, lookup, environment.span),
    )
    services = tuple(
        _service(filled(service, lookup, service.span), release, place, environment, images)
        for service in service_order(tuple(active))
    )
    return replace(release, services=services)


def _service(
    service: ServiceSpec,
    release: Release,
    place: Place,
    environment: EnvironmentSpec,
    images: Mapping[str, str],
) -> ReleaseService:
    keys = service.container
    env = merge_variables(place.outside, read_env_files(keys.env_file, place.root), environment.env, keys.env)
    spec = container_spec(
        keys,
        place,
        image=deployed_name(release.project, service.name, images[keys.image]),
        env=env,
        deploy=service.deploy,
        ports=service.ports,
        healthcheck=service.healthcheck,
        no_healthcheck=service.no_healthcheck,
        restart=service.restart or service.deploy.restart or RestartPolicy(),
        **_network(service, release),
    )
    # Labels are added when it is applied: the hash must not depend on itself.
    config_hash = _hash(
        [dump_spec(spec), service.container_name, [[u.name, u.target, u.env] for u in service.secrets]]
    )
    labels = {
        **dict(keys.labels),
        COMPOSE + "project": release.project,
        COMPOSE + "service": service.name,
        COMPOSE + "oneoff": "False",
        COMPOSE + "config-hash": config_hash,
        COMPOSE + "project.working_dir": place.root,
        COMPOSE + "image": images[keys.image],
        COMPOSE + "depends_on": ",".join(
            f"{n.service}:service_{n.condition}:{n.restart}".lower() for n in service.depends_on
        ),
        "pipe.pipeline": release.pipeline,
        "pipe.environment": release.environment,
    }
    return ReleaseService(
        name=service.name,
        image=images[keys.image],
        reference=keys.image,
        spec=replace(spec, labels=labels, name=service.container_name),
        config_hash=config_hash,
        replicas=1 if service.container_name else service.deploy.replicas,
        depends_on=service.depends_on,
        secrets=service.secrets,
    )


def deployed_name(project: str, service: str, image: str) -> str:
    """A name that only ever means this image: for `pipe ps`, and so that no clean-up takes what a rollback may need."""
    return f"{project}-{service}:deployed-{image.partition(':')[2][:12]}".lower()


def _network(service: ServiceSpec, release: Release) -> dict[str, Any]:
    if service.container.network_mode:
        return {}
    uses = service.networks
    attachments = tuple(
        NetworkAttachment(
            network=release.network_name(use.name),
            aliases=tuple(dict.fromkeys((service.name, *use.aliases))),
            ipv4=use.ipv4_address,
            mac=use.mac_address,
        )
        for use in uses
    ) or (NetworkAttachment(network=release.network_name("default"), aliases=(service.name,)),)
    return {"network_mode": "", "networks": attachments}


def used_networks(release: Release) -> list[str]:
    """The names in the file of the networks its services are on."""
    real = {attachment.network for service in release.services for attachment in service.spec.networks}
    names = [network.name for network in release.networks] + ["default"]
    return [name for name in dict.fromkeys(names) if release.network_name(name) in real]


def _hash(record: Any) -> str:
    return hashlib.sha256(json.dumps(["release.v1", record], sort_keys=True).encode()).hexdigest()


def release_to_json(release: Release) -> dict[str, Any]:
    """For the database."""
    return {
        "project": release.project,
        "pipeline": release.pipeline,
        "environment": release.environment,
        "url": release.url,
        "health": {
            name: getattr(release.health, name)
            for name in ("http", "status", "tcp", "exec", "service", "timeout", "interval", "soak")
        },
        "networks": [
            [n.name, n.external, n.internal, n.subnet, n.gateway, n.real_name, list(n.labels)]
            for n in release.networks
        ],
        "volumes": [
            [v.name, v.external, v.real_name, list(v.labels), list(v.options)] for v in release.volumes
        ],
        "services": [
            {
                "name": service.name,
                "image": service.image,
                "reference": service.reference,
                "config_hash": service.config_hash,
                "replicas": service.replicas,
                "spec": json.loads(dump_spec(service.spec)),
                "depends_on": [[n.service, n.condition, n.required, n.restart] for n in service.depends_on],
                "secrets": [_secret_to_json(use) for use in service.secrets],
            }
            for service in release.services
        ],
    }


def _secret_to_json(use: SecretUse) -> dict[str, Any]:
    source = use.source
    kept = {"env": source.env, "file": source.file, "command": list(source.command)} if source else None
    return {"name": use.name, "target": use.target, "env": use.env, "mode": use.mode, "source": kept}


def release_from_json(record: dict[str, Any]) -> Release:
    health = {**record["health"], "exec": tuple(record["health"]["exec"])}
    return Release(
        project=record["project"],
        pipeline=record["pipeline"],
        environment=record["environment"],
        url=record["url"],
        health=HealthGate(**health),
        networks=tuple(
            NetworkSpec(row[0], row[1], row[2], row[3], row[4], row[5], _pairs(row[6]))
            for row in record["networks"]
        ),
        volumes=tuple(
            VolumeSpec(row[0], row[1], row[2], _pairs(row[3]), _pairs(row[4])) for row in record["volumes"]
        ),
        services=tuple(_service_from_json(row) for row in record["services"]),
    )


def _service_from_json(row: dict[str, Any]) -> ReleaseService:
    return ReleaseService(
        name=row["name"],
        image=row["image"],
        reference=row["reference"],
        config_hash=row["config_hash"],
        replicas=row["replicas"],
        spec=load_spec(json.dumps(row["spec"])),
        depends_on=tuple(Dependency(*item) for item in row["depends_on"]),
        secrets=tuple(_secret_from_json(item) for item in row["secrets"]),
    )


def _secret_from_json(row: dict[str, Any]) -> SecretUse:
    kept = row["source"]
    source = (
        SecretSpec(name=row["name"], env=kept["env"], file=kept["file"], command=tuple(kept["command"]))
        if kept
        else None
    )
    return SecretUse(row["name"], row["target"], row["env"], row["mode"], source=source)


def _pairs(rows: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in rows)
