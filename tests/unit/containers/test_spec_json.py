"""What was asked for survives the database unchanged."""

from __future__ import annotations

from dataclasses import replace

from pipeline.cli.run_flags import parse_command_line
from pipeline.cli.run_spec import container_spec
from registry_client.oci.config import ContainerConfig, Healthcheck
from runtime.containers.spec import ContainerSpec
from runtime.containers.spec_json import dump_image_config, dump_spec, load_image_config, load_spec


def test_a_full_spec_comes_back() -> None:
    words = (
        "-d -it --name x -v aa:/b:ro --mount type=tmpfs,target=/t,tmpfs-mode=700 -p 1-3:4-6 --network n --ip 10.0.0.1 -m 64m "
        "--device-read-bps /dev/sda:1m --ulimit core=-1 --restart on-failure:2 --health-cmd true --add-host a:1.2.3.4 "
        "--device /dev/null:/dev/n:r --sysctl net.core.somaxconn=9 -l a=b -e A=1 -u 1 --link x:y --entrypoint= i cmd"
    )
    spec = container_spec(parse_command_line(words.split()), {}, "/")
    assert load_spec(dump_spec(spec)) == spec
    assert load_spec(dump_spec(replace(spec, entrypoint=None))) == replace(spec, entrypoint=None)


def test_defaults_are_not_written() -> None:
    assert dump_spec(ContainerSpec(image="i")) == '{"image":"i"}'
    assert load_spec('{"image":"i"}') == ContainerSpec(image="i")


def test_an_image_config_comes_back() -> None:
    config = ContainerConfig(
        user="1", env=("A=1",), entrypoint=(), cmd=None, volumes=("/v",), labels={"a": "b"},
        healthcheck=Healthcheck(("CMD", "x"), retries=2), exposed_ports=("80/tcp",),
    )  # fmt: skip
    assert load_image_config(dump_image_config(config)) == config
    assert load_image_config(dump_image_config(ContainerConfig())) == ContainerConfig()
