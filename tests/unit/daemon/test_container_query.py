"""Docker's JSON of a container to be, as its clients send it, and the spec that comes of it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_client.oci.config import Healthcheck
from runtime.containers.spec import Mount, NetworkAttachment, PortBinding, RestartPolicy, Rlimit, Throttle
from runtime.daemon.asked import expecting
from runtime.daemon.container_query import container_spec, exec_spec
from runtime.errors import InvalidInput, PipeError, Unsupported

NAMES = (
    "Image", "Cmd", "Entrypoint", "Env", "User", "Labels", "Healthcheck", "Test", "Interval", "Volumes", "NetworkingConfig", "EndpointsConfig", "StopTimeout",
    "Binds", "Mounts", "Type", "Target", "Source", "Tmpfs", "PortBindings", "80/tcp", "HostPort", "Memory", "NanoCpus", "Ulimits", "Name", "Soft", "Hard",
    "RestartPolicy", "SecurityOpt", "ExtraHosts", "Links", "Devices", "PathOnHost", "LogConfig", "Sysctls", "NetworkMode", "BlkioWeightDevice",
)  # fmt: skip


def spec(host: dict[str, Any] | None = None, **record: Any) -> Any:
    return container_spec({"Image": "i", "HostConfig": host or {}, **record}, "", "")


def test_nothing_said_is_the_images_own() -> None:
    made = container_spec({"Image": "i"}, "/name", "linux/arm64")
    assert (made.image, made.name, made.platform) == ("i", "name", "linux/arm64")
    assert (made.command, made.entrypoint, made.user, made.working_dir, made.healthcheck) == (None,) * 5
    assert (made.network_mode, made.networks, made.stop_timeout) == ("bridge", (), 10.0)


def test_null_missing_and_empty_are_not_the_same() -> None:
    assert spec(Cmd=None).command is None
    assert spec(Cmd=[]).command is None
    assert spec(Cmd="one word").command == ("one word",)
    assert spec(Entrypoint=[""]).entrypoint == ()
    assert spec(Entrypoint=["sh", "-c"]).entrypoint == ("sh", "-c")
    assert spec(StopTimeout=0).stop_timeout == 0
    assert spec(Env=["A=1", "B=", "C"]).env == ("A=1", "B=")


def test_healthchecks() -> None:
    made = spec(Healthcheck={"Test": ["CMD", "x"], "Interval": 5, "Retries": 2})
    assert made.healthcheck == Healthcheck(test=("CMD", "x"), interval=5, retries=2)
    none = spec(Healthcheck={"Test": ["NONE"]})
    assert (none.healthcheck, none.no_healthcheck) == (None, True)


def test_mounts_of_all_three_kinds() -> None:
    made = spec(
        {
            "Binds": ["/a:/b:ro,rslave", "vol:/c:nocopy"],
            "Mounts": [
                {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 9, "Mode": 0o700}},
                {
                    "Type": "volume",
                    "Source": "v",
                    "Target": "/v",
                    "VolumeOptions": {"Subpath": "s"},
                    "ReadOnly": True,
                },
            ],
            "Tmpfs": {"/x": "size=1m,ro"},
        },
        Volumes={"/anonymous": {}, "/b": {}},
    )
    assert made.mounts == (
        Mount(type="bind", source="/a", target="/b", readonly=True, propagation="rslave", create_source=True),
        Mount(type="volume", source="vol", target="/c", copy_up=False, create_source=True),
        Mount(type="tmpfs", target="/t", size=9, mode=0o700),
        Mount(type="volume", source="v", target="/v", subpath="s", readonly=True),
        Mount(type="tmpfs", target="/x", readonly=True, options=("size=1m",)),
        Mount(type="volume", target="/anonymous"),
    )


def test_networks_and_their_addresses() -> None:
    def endpoints(**named: Any) -> dict[str, Any]:
        return {"EndpointsConfig": named}

    assert spec({"NetworkMode": "default"}).network_mode == "bridge"
    assert spec({"NetworkMode": "host"}).network_mode == "host"
    assert spec({"NetworkMode": "container:x"}).network_mode == "container:x"
    assert spec(NetworkDisabled=True).network_mode == "none"
    made = spec(
        {"NetworkMode": "mine"},
        NetworkingConfig=endpoints(
            mine={
                "Aliases": ["a"],
                "IPAMConfig": {"IPv4Address": "10.0.0.2"},
                "MacAddress": "02:00:00:00:00:01",
            },
            other=None,
        ),
    )
    assert made.network_mode == ""
    assert made.networks == (
        NetworkAttachment(network="mine", aliases=("a",), ipv4="10.0.0.2", mac="02:00:00:00:00:01"),
        NetworkAttachment(network="other"),
    )


def test_ports() -> None:
    made = spec(
        {
            "PortBindings": {
                "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostPort": ""}],
                "53/udp": None,
            }
        }
    )
    assert made.ports == (
        PortBinding(container_port=80, host_ip="127.0.0.1", host_port=8080),
        PortBinding(container_port=80),
        PortBinding(container_port=53, protocol="udp"),
    )


def test_limits_and_the_rest() -> None:
    made = spec(
        {
            "Memory": 1, "MemorySwap": -1, "NanoCpus": 1_500_000_000, "PidsLimit": -1, "ShmSize": 5, "OomKillDisable": None,
            "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}], "BlkioDeviceReadBps": [{"Path": "/dev/vda", "Rate": 7}],
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}, "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"],
            "ExtraHosts": ["a:1.2.3.4", "b=host-gateway", "c:[::1]"], "Links": ["/one:/two/alias", "three"], "Runtime": "pipe",
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}, "Devices": [{"PathOnHost": "/dev/null"}],
        }
    )  # fmt: skip
    limits = made.limits
    assert (limits.memory, limits.memory_swap, limits.cpus, limits.pids, limits.shm_size) == (
        1,
        -1,
        1.5,
        0,
        5,
    )
    assert limits.throttles == (Throttle("read-bps", "/dev/vda", 7),)
    assert made.rlimits == (Rlimit(name="nofile", soft=1, hard=2),)
    assert made.restart == RestartPolicy(name="on-failure", maximum=3)
    assert (made.no_new_privileges, made.seccomp, made.runtime) == (True, "unconfined", "")
    assert made.extra_hosts == (("a", "1.2.3.4"), ("b", "host-gateway"), ("c", "::1"))
    assert made.links == (("one", "alias"), ("three", "three"))
    assert made.log_options == {"max-size": "1m"}
    assert made.devices == (("/dev/null", "/dev/null", "rwm"),)


@pytest.mark.parametrize(
    ("host", "error"),
    [
        ({"DeviceRequests": [{"Driver": "nvidia"}]}, Unsupported),
        ({"VolumeDriver": "nfs"}, Unsupported),
        ({"LogConfig": {"Type": "syslog"}}, InvalidInput),
        ({"SecurityOpt": ['seccomp={"x":1}']}, Unsupported),
        ({"Binds": ["/a:b"]}, InvalidInput),
        ({"Binds": ["/a:/b", "/c:/b"]}, InvalidInput),
        ({"Mounts": [{"Type": "npipe", "Target": "/x"}]}, InvalidInput),
        ({"PortBindings": {"x/tcp": None}}, InvalidInput),
        ({"ExtraHosts": ["x"]}, InvalidInput),
        ({"Isolation": "hyperv"}, InvalidInput),
    ],
)
def test_what_cannot_be_is_refused(host: dict[str, Any], error: type[PipeError]) -> None:
    with pytest.raises(error):
        spec(host)


def test_a_container_needs_an_image_and_an_exec_a_command() -> None:
    with pytest.raises(InvalidInput, match="no image"):
        container_spec({}, "", "")
    with pytest.raises(InvalidInput, match="No exec command"):
        exec_spec({"Cmd": []})
    made = exec_spec(
        {"Cmd": ["a"], "Env": ["B=1"], "User": "u", "Tty": True, "AttachStdin": True, "Privileged": True}
    )
    assert (made.argv, made.env, made.user, made.tty, made.stdin, made.privileged) == (
        ("a",),
        ("B=1",),
        "u",
        True,
        True,
        True,
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 40) | st.text("ab:/0=,-", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text("ab", max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6),
    st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6),
)
def test_whatever_is_sent_is_a_spec_or_a_refusal(record: dict[str, Any], host: dict[str, Any]) -> None:
    with suppress(InvalidInput, Unsupported), expecting("it"):
        container_spec({"Image": "i", **record, "HostConfig": host}, "", "")
