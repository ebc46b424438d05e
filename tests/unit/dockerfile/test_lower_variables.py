"""ARG and ENV: who sees what, and which one wins (FEATURES A-20 … A-37, K1, K2)."""

from __future__ import annotations

import pytest

from builder.dockerfile import DockerfileError, parse_dockerfile
from builder.graph import Exec, StageGraph
from builder.lower import bases, unused_arguments
from registry_client.oci.config import ContainerConfig
from runtime.errors import Unsupported
from tests.support.dockerfile import created, lowered, options_with

DEBIAN = "docker.io/library/debian:latest"


def environment(graph: StageGraph, step: int = -1) -> dict[str, str]:
    """What the chosen RUN sees."""
    runs = [
        i.vertex.operation for i in graph.instructions if i.vertex and isinstance(i.vertex.operation, Exec)
    ]
    return dict(runs[step].env)


def test_env_expands_all_words_before_any_is_set() -> None:
    graph = lowered("FROM scratch\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\n")
    assert graph.config.config.env[1:] == ("abc=bye", "def=hello", "ghi=bye")


def test_arg_expands_from_left_to_right() -> None:
    graph = lowered("FROM scratch\nARG a=1 b=$a\nRUN x\n")
    assert environment(graph)["b"] == "1"


def test_an_arg_after_env_wins_for_run_but_not_in_the_image() -> None:
    graph = lowered("FROM scratch\nENV v=env\nARG v=arg\nRUN x\n")
    assert environment(graph)["v"] == "arg"
    assert "v=env" in graph.config.config.env


def test_an_env_after_arg_hides_it() -> None:
    graph = lowered("FROM scratch\nARG v=arg\nENV v=env\nRUN x\n", build_args={"v": "given"})
    assert environment(graph)["v"] == "env"


def test_an_arg_overrides_the_env_of_the_base_image() -> None:
    images = {DEBIAN: ContainerConfig(env=("PATH=/bin", "v=base"))}
    graph = lowered("FROM debian\nARG v=arg\nRUN x\n", images)
    assert environment(graph)["v"] == "arg"
    assert graph.config.config.env == ("PATH=/bin", "v=base")


def test_a_global_arg_is_seen_by_from_only_until_redeclared() -> None:
    graph = lowered("ARG v=1\nFROM scratch AS a\nRUN first\nARG v\nRUN second\n")
    assert "v" not in environment(graph, 0)
    assert environment(graph, 1)["v"] == "1"


def test_a_default_in_the_stage_beats_the_global_one() -> None:
    graph = lowered("ARG v=global\nFROM scratch\nARG v=stage\nRUN x\n")
    assert environment(graph)["v"] == "stage"


def test_a_build_arg_beats_every_default() -> None:
    graph = lowered("ARG v=global\nFROM scratch\nARG v=stage\nRUN x\n", build_args={"v": "given"})
    assert environment(graph)["v"] == "given"


def test_an_arg_without_value_is_unset_not_empty() -> None:
    graph = lowered("FROM scratch\nARG v\nENV w=${v-unset} x=${v:-unset}\nRUN y\n")
    assert graph.config.config.env[1:] == ("w=unset", "x=unset")
    assert "v" not in environment(graph)


def test_args_are_inherited_by_a_stage_that_is_from_another() -> None:
    graph = lowered("FROM scratch AS a\nARG v=1\nFROM a\nRUN x\n")
    assert environment(graph)["v"] == "1"
    assert created(graph)[-1] == "RUN |1 v=1 /bin/sh -c x # buildkit"


def test_env_of_the_parent_stage_hides_an_inherited_arg_again() -> None:
    graph = lowered("FROM scratch AS a\nENV v=env\nARG v=arg\nRUN x\nFROM a\nRUN y\n")
    assert (environment(graph, 0)["v"], environment(graph, 1)["v"]) == ("arg", "env")


def test_later_global_args_use_earlier_ones_and_an_override_is_not_expanded() -> None:
    dockerfile = parse_dockerfile("ARG a=12\nARG b=debian:$a\nARG c=${nope:?missing}\nFROM $b\n")
    (base,) = bases(dockerfile, options_with(build_args={"c": "x"}))
    assert base.reference == "docker.io/library/debian:12"
    with pytest.raises(DockerfileError, match="nope: missing"):
        bases(dockerfile, options_with())


def test_platform_args_need_a_declaration_in_the_stage() -> None:
    text = "FROM scratch AS a\nRUN no\nARG TARGETARCH TARGETSTAGE\nARG BUILDPLATFORM\nRUN yes\n"
    graph = lowered(text)
    assert "TARGETARCH" not in environment(graph, 0)
    seen = environment(graph, 1)
    assert (seen["TARGETARCH"], seen["BUILDPLATFORM"], seen["TARGETSTAGE"]) == ("amd64", "linux/amd64", "a")


def test_a_platform_arg_can_be_overridden() -> None:
    graph = lowered("FROM scratch\nARG TARGETARCH\nRUN x\n", build_args={"TARGETARCH": "riscv64"})
    assert environment(graph)["TARGETARCH"] == "riscv64"


def test_proxies_reach_every_run_without_arg_and_stay_out_of_history() -> None:
    graph = lowered("FROM scratch\nRUN x\n", build_args={"HTTP_PROXY": "http://p"})
    assert environment(graph)["http_proxy"] == "http://p"
    assert created(graph) == ["RUN /bin/sh -c x # buildkit"]
    assert "http_proxy" not in "".join(graph.config.config.env)


def test_the_history_of_run_lists_the_args_in_force() -> None:
    graph = lowered("FROM scratch\nARG a=1\nARG b\nENV a=2\nRUN make\n")
    assert created(graph)[-1] == "RUN |2 a=2 b= /bin/sh -c make # buildkit"


def test_unused_build_args_are_told_and_known_ones_are_not() -> None:
    dockerfile = parse_dockerfile("ARG a\nFROM scratch\nARG b\n")
    given = {"a": "", "b": "", "c": "", "HTTP_PROXY": "", "TARGETARCH": "", "BUILDKIT_INLINE_CACHE": "1"}
    assert unused_arguments(dockerfile, options_with(build_args=given)) == ("c",)


def test_a_base_without_path_gets_one() -> None:
    assert lowered("FROM scratch\n").config.config.env[0].startswith("PATH=/usr/local/sbin:")
    images = {DEBIAN: ContainerConfig(env=("A=1",))}
    assert lowered("FROM debian\n", images).config.config.env[0] == "A=1"


def test_setting_a_variable_again_keeps_its_place() -> None:
    graph = lowered("FROM scratch\nENV a=1\nENV b=2\nENV a=3\n")
    assert graph.config.config.env[1:] == ("a=3", "b=2")


def test_variables_are_not_expanded_in_commands() -> None:
    graph = lowered('FROM scratch\nENV a=1\nRUN echo $a\nCMD echo $a\nENTRYPOINT ["$a"]\n')
    runs = [i.vertex.operation for i in graph.instructions if i.vertex]
    assert runs[0].argv == ("/bin/sh", "-c", "echo $a")  # type: ignore[union-attr]
    assert graph.config.config.entrypoint == ("$a",)


def test_label_keys_expand_too_and_quotes_go() -> None:
    graph = lowered("FROM scratch\nENV k=key\nLABEL $k.x=\"a b\" 'c'=d\\ e\n")
    assert graph.config.config.labels == {"key.x": "a b", "c": "d e"}


def test_an_expansion_that_explodes_is_refused() -> None:
    doubling = "ENV a=$a$a\n" * 30
    with pytest.raises(DockerfileError, match="larger than"):
        lowered(f"FROM scratch\nENV a=0123456789\n{doubling}")


def test_an_error_in_a_word_names_its_line() -> None:
    with pytest.raises(DockerfileError, match="token: give one") as caught:
        lowered('FROM scratch\n\nENV a="${token:?give one}"\n')
    assert caught.value.span is not None and caught.value.span.line == 3


@pytest.mark.parametrize(
    "syntax",
    ["docker/dockerfile:1", "docker/dockerfile:1.7-labs", "mirror.example:5000/x/docker/dockerfile@sha256:1"],
)
def test_a_dockerfile_front_end_is_taken_for_ours(syntax: str) -> None:
    lowered(f"# syntax={syntax}\nFROM scratch\n")


def test_another_front_end_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="unknown front end 'example/mockerfile:2'") as caught:
        lowered("# syntax=example/mockerfile:2\nFROM scratch\n")
    assert str(caught.value.span) == "Dockerfile:1:1"
    lowered("# syntax=example/x\nFROM scratch\n", build_args={"BUILDKIT_SYNTAX": "dockerfile.v0"})
