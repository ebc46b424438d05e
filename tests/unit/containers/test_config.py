"""From what is asked and what the image says to an OCI config; judged by the runtime-spec's own schema where it is at hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from registry_client.oci.config import ContainerConfig, Healthcheck
from runtime.containers.config import (
    MountPoint,
    Surroundings,
    argv_of,
    build_step_config,
    capabilities,
    device_rule,
    environment_of,
    healthcheck_of,
    oci_config,
)
from runtime.containers.resources import resources
from runtime.containers.signals import parse_signal
from runtime.containers.spec import ContainerSpec, Limits, Rlimit, Throttle
from runtime.errors import InvalidInput
from tests.support import shared_data

SPEC = ContainerSpec(image="i", command=("run",))
AROUND = Surroundings(id="f" * 64, cgroup="/pipe/f")
IMAGE = ContainerConfig()


@pytest.mark.parametrize(
    ("entrypoint", "command", "expected"),
    [
        (None, None, ("entry", "cmd")),
        (None, ("own",), ("entry", "own")),
        (("mine",), None, ("mine",)),
        (("mine",), ("own",), ("mine", "own")),
        ((), ("own",), ("own",)),
    ],
)
def test_a_given_entrypoint_drops_the_images_command(
    entrypoint: tuple[str, ...] | None, command: tuple[str, ...] | None, expected: tuple[str, ...]
) -> None:
    spec = ContainerSpec(image="i", entrypoint=entrypoint, command=command)
    assert argv_of(spec, ContainerConfig(entrypoint=("entry",), cmd=("cmd",))) == expected


def test_nothing_to_run_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="no command"):
        argv_of(ContainerSpec(image="i", entrypoint=()), ContainerConfig(cmd=("cmd",)))


def test_the_environment_is_ours_then_the_images_then_the_specs() -> None:
    spec = replace(SPEC, env=("A=spec", "GONE"), tty=True)
    env = environment_of(spec, ContainerConfig(env=("A=image", "GONE=x", "PATH=/only")), "host")
    assert env == ("PATH=/only", "HOSTNAME=host", "TERM=xterm", "A=spec")


def test_capabilities_are_dockers_with_additions_and_drops() -> None:
    assert len(capabilities((), ())) == 14
    assert capabilities(("net_admin",), ("ALL",)) == ["CAP_NET_ADMIN"]
    assert "CAP_CHOWN" not in capabilities(("ALL",), ("CHOWN",))
    assert len(capabilities(("ALL",), ())) == len(capabilities((), (), privileged=True))
    with pytest.raises(InvalidInput) as raised:
        capabilities(("NET_ADMN",), ())
    assert "CAP_NET_ADMIN" in raised.value.hint


def test_fields_of_a_health_check_override_one_by_one() -> None:
    image = ContainerConfig(healthcheck=Healthcheck(("CMD", "image"), interval=5, retries=7))
    assert healthcheck_of(SPEC, image) == image.healthcheck
    spec = replace(SPEC, healthcheck=Healthcheck((), interval=9))
    assert healthcheck_of(spec, image) == Healthcheck(("CMD", "image"), interval=9, retries=7)
    assert healthcheck_of(replace(SPEC, no_healthcheck=True), image) is None
    assert healthcheck_of(SPEC, ContainerConfig(healthcheck=Healthcheck(("NONE",)))) is None


def test_host_modes_leave_the_namespace_out() -> None:
    around = replace(AROUND, network="host", uts="host", pid="/proc/7/ns/pid")
    config = oci_config(SPEC, IMAGE, around)
    kinds = {space["type"]: space.get("path") for space in config["linux"]["namespaces"]}
    assert kinds == {"mount": None, "pid": "/proc/7/ns/pid", "ipc": None, "cgroup": None, "time": None}
    assert "hostname" not in config
    assert "sysctl" not in config["linux"]


def test_other_runtimes_get_no_time_namespace() -> None:
    config = oci_config(replace(SPEC, runtime="crun"), IMAGE, AROUND)
    assert "time" not in [space["type"] for space in config["linux"]["namespaces"]]


def test_a_mount_of_its_own_replaces_a_standard_one() -> None:
    around = replace(AROUND, mounts=(MountPoint("/dev/shm", "bind", "/host", ("rbind",)),))
    targets = [mount["destination"] for mount in oci_config(SPEC, IMAGE, around)["mounts"]]
    assert targets.count("/dev/shm") == 1
    assert targets[-1] == "/dev/shm"


def test_privileged_takes_the_restrictions_away() -> None:
    config = oci_config(replace(SPEC, privileged=True), IMAGE, AROUND)
    assert config["linux"]["maskedPaths"] == []
    assert config["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert not any("ro" in mount["options"] for mount in config["mounts"])


def test_limits_become_resources() -> None:
    limits = Limits(memory=64 << 20, cpus=0.5, pids=9, cpuset_cpus="0", swappiness=0)
    assert resources(limits) == {
        "memory": {"limit": 64 << 20, "swap": 128 << 20, "swappiness": 0},
        "cpu": {"quota": 50_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 9},
    }
    assert resources(Limits()) == {}
    throttled = resources(Limits(throttles=(Throttle("read-bps", "/dev/null", 5),)))
    assert throttled["blockIO"]["throttleReadBpsDevice"] == [{"major": 1, "minor": 3, "rate": 5}]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(memory=1 << 20), "too small"),
        (Limits(memory_swap=1 << 30), "needs a memory limit"),
        (Limits(memory=64 << 20, memory_swap=32 << 20), "below the memory limit"),
        (Limits(cpus=1, cpu_quota=5), "twice"),
        (Limits(cpus=100_000), "cannot be given"),
        (Limits(blkio_weight=5), "not between"),
    ],
)
def test_limits_that_cannot_be_are_refused(limits: Limits, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        resources(limits)


def test_device_rules_are_read() -> None:
    assert device_rule("c 42:* rw") == {"allow": True, "type": "c", "access": "rw", "major": 42}
    for bad in ("c 42 rw", "x 1:2 r", "c 1:2 z", ""):
        with pytest.raises(InvalidInput):
            device_rule(bad)


def test_signals_are_read_in_all_spellings() -> None:
    assert [int(parse_signal(text)) for text in ("TERM", "SIGTERM", "15", "term", "RTMIN+3")] == [
        15,
        15,
        15,
        15,
        37,
    ]
    for bad in ("TREM", "0", "99", ""):
        with pytest.raises(InvalidInput):
            parse_signal(bad)


def test_the_configs_are_valid_by_the_schema_of_the_runtime_spec() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    directory = shared_data("spec/oci/runtime")
    schemas = {path.name: json.loads(path.read_text()) for path in directory.glob("*.json")}
    referencing = pytest.importorskip("referencing")
    resources_ = [
        (name, referencing.Resource.from_contents(schema, referencing.jsonschema.DRAFT4))
        for name, schema in schemas.items()
    ]
    registry = referencing.Registry().with_resources(resources_)
    validator = jsonschema.Draft4Validator(schemas["config-schema.json"], registry=registry)
    full = replace(
        SPEC,
        limits=Limits(memory=64 << 20, cpus=1, pids=5),
        rlimits=(Rlimit(name="nofile", soft=1, hard=2),),
        privileged=False,
        user="1:2",
        working_dir="/x",
    )
    for config in (
        oci_config(SPEC, IMAGE, AROUND),
        oci_config(full, IMAGE, replace(AROUND, network="/proc/1/ns/net")),
        build_step_config(
            argv=["make"], env=["A=1"], cwd="/src", user="me", cgroup="/pipe/b", network="host"
        ),
    ):
        assert [error.message for error in validator.iter_errors(config)] == []
