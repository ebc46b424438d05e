"""Every flag of `docker run`: known, parsed into values, or refused with a reason (D-14 to D-21)."""

from __future__ import annotations

import pytest

from pipeline.cli.run_flags import TABLE, help_text, parse_command_line
from pipeline.cli.run_spec import RunRequest, run_request
from pipeline.cli.run_values import publish
from registry_client.oci.config import Healthcheck
from runtime.containers.spec import Mount, NetworkAttachment, PortBinding, RestartPolicy, Rlimit
from runtime.errors import InvalidInput, PipeError, Unsupported


def request(*words: str, env: dict[str, str] | None = None) -> RunRequest:
    return run_request(parse_command_line(words), env or {}, "/here")


def test_all_of_dockers_flags_are_known() -> None:
    names = {flag.name for flag in TABLE}
    docker = """add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile
    cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems detach
    detach-keys device device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops
    disable-content-trust dns dns-option dns-search domainname entrypoint env env-file expose gpus group-add health-cmd
    health-interval health-retries health-start-interval health-start-period health-timeout help hostname init interactive
    io-maxbandwidth io-maxiops ip ip6 ipc isolation kernel-memory label label-file link link-local-ip log-driver log-opt
    mac-address memory memory-reservation memory-swap memory-swappiness mount name network network-alias no-healthcheck
    oom-kill-disable oom-score-adj pid pids-limit platform privileged publish publish-all pull quiet read-only restart rm
    runtime security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs tty ulimit use-api-socket user
    userns uts volume volume-driver volumes-from workdir"""
    assert names == set(docker.split())
    assert [flag.name for flag in TABLE] == sorted(names)
    assert "--volumes-from" in help_text("run", "x")


def test_flags_end_at_the_image() -> None:
    got = request("-it", "--rm", "busybox", "sh", "-c", "echo --rm", "--name", "x")
    assert got.spec.image == "busybox"
    assert got.spec.command == ("sh", "-c", "echo --rm", "--name", "x")
    assert (got.spec.tty, got.spec.stdin, got.spec.auto_remove, got.spec.name) == (True, True, True, "")


@pytest.mark.parametrize(
    "words", [["-p", "80:81"], ["-p80:81"], ["-p=80:81"], ["--publish", "80:81"], ["--publish=80:81"]]
)
def test_a_value_may_stand_after_the_flag_or_in_it(words: list[str]) -> None:
    assert request(*words, "i").spec.ports == (PortBinding(container_port=81, host_port=80),)


def test_switches_take_true_and_false() -> None:
    assert request("--sig-proxy=false", "--init=true", "-d=false", "i").sig_proxy is False
    assert request("--tty=0", "i").spec.tty is False
    with pytest.raises(InvalidInput, match="--init=perhaps"):
        request("--init=perhaps", "i")


@pytest.mark.parametrize(
    "flag", ["cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops", "kernel-memory"]
)
def test_what_linux_does_not_have_is_refused_with_a_reason(flag: str) -> None:
    with pytest.raises(InvalidInput, match=rf"--{flag} cannot be used"):
        request(f"--{flag}=1", "i")


def test_a_mistyped_flag_names_the_nearest() -> None:
    with pytest.raises(InvalidInput) as raised:
        request("--volum", "/a:/b", "i")
    assert raised.value.hint == "did you mean `--volume`?"


def test_no_image_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="no image"):
        request("--rm")


def test_a_bare_variable_takes_ours_and_is_removed_when_we_have_none() -> None:
    assert request("-e", "A", "-e", "B=1", "-e", "C", "i", env={"A": "x"}).spec.env == ("A=x", "B=1", "C")


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/data", Mount(type="volume", target="/data")),
        ("name:/data:ro", Mount(type="volume", source="name", target="/data", readonly=True)),
        ("name:/data:nocopy", Mount(type="volume", source="name", target="/data", copy_up=False)),
        ("/host:/in", Mount(type="bind", source="/host", target="/in", create_source=True)),
        ("./rel:/in/", Mount(type="bind", source="/here/rel", target="/in", create_source=True)),
        (
            "/host:/in:ro,rshared",
            Mount(
                type="bind",
                source="/host",
                target="/in",
                readonly=True,
                propagation="rshared",
                create_source=True,
            ),
        ),
    ],
)
def test_volumes(text: str, mount: Mount) -> None:
    assert request("-v", text, "i").spec.mounts == (mount,)


def test_mounts() -> None:
    spec = request(
        "--mount", "type=bind,src=rel,dst=/a,readonly",
        "--mount", "source=vol,target=/b,volume-subpath=x/y,volume-nocopy",
        "--mount", "type=tmpfs,target=/c,tmpfs-size=1m,tmpfs-mode=700",
        "--tmpfs", "/d:size=64k,exec",
        "i",
    ).spec  # fmt: skip
    assert spec.mounts == (
        Mount(type="bind", source="/here/rel", target="/a", readonly=True),
        Mount(type="volume", source="vol", target="/b", subpath="x/y", copy_up=False),
        Mount(type="tmpfs", target="/c", size=1 << 20, mode=0o700),
        Mount(type="tmpfs", target="/d", size=64 << 10, options=("nosuid", "nodev", "exec")),
    )


def test_ports() -> None:
    spec = request(
        "-p",
        "80",
        "-p",
        "127.0.0.1:8080:80/udp",
        "-p",
        "[::1]:90:91",
        "-p",
        "100-102:200-202",
        "-p",
        "127.0.0.1::5",
        "i",
    ).spec
    assert spec.ports == (
        PortBinding(container_port=80),
        PortBinding(container_port=80, protocol="udp", host_port=8080, host_ip="127.0.0.1"),
        PortBinding(container_port=91, host_port=90, host_ip="::1"),
        *(PortBinding(container_port=200 + n, host_port=100 + n) for n in range(3)),
        PortBinding(container_port=5, host_ip="127.0.0.1"),
    )


def test_networks() -> None:
    assert request("i").spec.network_mode == "bridge"
    assert request("--network", "host", "i").spec.network_mode == "host"
    spec = request(
        "--network", "name=front,alias=a,ip=10.0.0.5", "--network", "back", "--network-alias", "b", "i"
    ).spec
    assert spec.network_mode == ""
    assert spec.networks == (
        NetworkAttachment(network="front", aliases=("a", "b"), ipv4="10.0.0.5"),
        NetworkAttachment(network="back"),
    )


def test_limits_and_the_rest() -> None:
    spec = request(
        "-m", "64m", "--memory-swap", "-1", "--cpus", "1.5", "--pids-limit", "50", "--ulimit", "nofile=10:20",
        "--ulimit", "core=-1", "--shm-size", "1g", "--restart", "on-failure:3", "--health-cmd", "true",
        "--health-interval", "1m30s", "--health-retries", "2", "--add-host", "a:1.2.3.4", "--add-host", "b:host-gateway",
        "--sysctl", "net.core.somaxconn=99", "--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges",
        "--device", "/dev/null:/dev/n:r", "--stop-timeout", "3", "--entrypoint", "", "-u", "1:2", "-l", "a=b", "i",
    ).spec  # fmt: skip
    assert (spec.limits.memory, spec.limits.memory_swap, spec.limits.cpus, spec.limits.pids) == (
        64 << 20,
        -1,
        1.5,
        50,
    )
    unlimited = (1 << 64) - 1
    assert spec.rlimits == (
        Rlimit(name="nofile", soft=10, hard=20),
        Rlimit(name="core", soft=unlimited, hard=unlimited),
    )
    assert spec.restart == RestartPolicy(name="on-failure", maximum=3)
    assert spec.healthcheck == Healthcheck(("CMD-SHELL", "true"), interval=90_000_000_000, retries=2)
    assert spec.extra_hosts == (("a", "1.2.3.4"), ("b", "host-gateway"))
    assert (spec.seccomp, spec.no_new_privileges, spec.entrypoint) == ("unconfined", True, ())
    assert (spec.devices, spec.stop_timeout, spec.labels) == (
        (("/dev/null", "/dev/n", "r"),),
        3.0,
        {"a": "b"},
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-v", "a:b:c:d"], "a:b:c:d"),
        (["-v", "name:relative"], "absolute path"),
        (["-v", "/a:/b:rp"], "unknown option 'rp'"),
        (["-v", "/a:/b", "-v", "/c:/b"], "mounted twice"),
        (["--mount", "typ=bind"], "unknown key 'typ'"),
        (["--mount", "type=bind,target=/x"], "needs a source"),
        (["-p", "99999"], "port between"),
        (["-p", "1-3:1-2"], "differ in length"),
        (["-m", "lots"], "not a size"),
        (["--cpus", "many"], "not a number"),
        (["--health-interval", "5"], "not a time"),
        (["--restart", "allways"], "unknown policy"),
        (["--rm", "--restart", "always"], "exclude"),
        (["--ulimit", "nofiles=1"], "unknown limit"),
        (["--env-file", "/nonexistent"], "cannot be read"),
        (["--network", "none", "--network", "x"], "excludes other networks"),
        (["--pid", "guest"], "--pid 'guest' is unknown"),
        (["-w", "relative"], "not an absolute path"),
        (["--log-driver", "syslog"], "not supported"),
        (["--security-opt", "secomp=x"], "unknown"),
        (["--pull", "sometimes"], "unknown"),
        (["-a", "stdlog"], "not a stream"),
        (["--gpus", "all"], "not supported"),
    ],
)
def test_a_bad_value_is_named(words: list[str], message: str) -> None:
    with pytest.raises(PipeError, match=message) as raised:
        request(*words, "i")
    assert isinstance(raised.value, InvalidInput | Unsupported)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [("0.0.0.0", 0, 80)]),
        ("0:80", [("0.0.0.0", 0, 80)]),
        ("127.0.0.1:0:80", [("127.0.0.1", 0, 80)]),
        ("127.0.0.1::80", [("127.0.0.1", 0, 80)]),
        ("8000-8001:80-81", [("0.0.0.0", 8000, 80), ("0.0.0.0", 8001, 81)]),
    ],
)
def test_a_published_port_is_given_ranged_or_any_free_one(
    text: str, expected: list[tuple[str, int, int]]
) -> None:
    assert [(p.host_ip, p.host_port, p.container_port) for p in publish(text)] == expected
