"""What instructions do to the image's config and history (FEATURES A5)."""

from __future__ import annotations

import pytest

from builder.dockerfile import DockerfileError
from builder.dockerfile.durations import parse_duration
from builder.graph import Exec, MakeDirectory
from builder.lower.history import go_duration, go_quote
from registry_client.oci.config import ContainerConfig, Healthcheck
from tests.support.dockerfile import created, lowered

BASE = "docker.io/library/base:latest"


def config(text: str, base: ContainerConfig | None = None) -> ContainerConfig:
    return lowered(text, {BASE: base} if base else None).config.config


def test_entrypoint_resets_an_inherited_cmd() -> None:
    assert config('FROM base\nENTRYPOINT ["a"]\n', ContainerConfig(cmd=("sh",))).cmd is None


def test_entrypoint_keeps_a_cmd_of_the_same_stage_before_or_after() -> None:
    assert config('FROM base\nCMD ["x"]\nENTRYPOINT ["a"]\n').cmd == ("x",)
    assert config('FROM base\nENTRYPOINT ["a"]\nCMD ["x"]\n').cmd == ("x",)


def test_a_cmd_of_a_parent_stage_counts_as_inherited() -> None:
    assert config('FROM scratch AS a\nCMD ["x"]\nFROM a\nENTRYPOINT ["y"]\n').cmd is None


def test_empty_lists_set_nothing() -> None:
    assert config("FROM base\nCMD []\n").cmd == ()
    assert config("FROM base\nENTRYPOINT []\n", ContainerConfig(entrypoint=("a",))).entrypoint is None


def test_shell_forms_use_the_shell_in_force() -> None:
    found = config('FROM scratch\nSHELL ["bash", "-c"]\nCMD a b\nENTRYPOINT c\n')
    assert (found.shell, found.cmd, found.entrypoint) == (
        ("bash", "-c"),
        ("bash", "-c", "a b"),
        ("bash", "-c", "c"),
    )


def test_invalid_json_becomes_a_shell_command() -> None:
    assert config("FROM scratch\nCMD ['a', 'b']\n").cmd == ("/bin/sh", "-c", "['a', 'b']")


def test_the_base_config_is_inherited_except_for_its_triggers() -> None:
    base = ContainerConfig(
        user="u", env=("PATH=/x",), working_dir="/w", labels={"a": "1"}, exposed_ports=("1/tcp",), volumes=("/v",),
        stop_signal="SIGINT", healthcheck=Healthcheck(("CMD", "x")), shell=("sh",), on_build=("RUN x",),
    )  # fmt: skip
    found = config("FROM base\nLABEL a=2 b=3\nEXPOSE 2\nVOLUME /w2\n", base)
    assert (found.user, found.working_dir, found.stop_signal, found.shell) == ("u", "/w", "SIGINT", ("sh",))
    assert found.labels == {"a": "2", "b": "3"}
    assert (found.exposed_ports, found.volumes) == (("1/tcp", "2/tcp"), ("/v", "/w2"))
    assert found.on_build == ()


def test_workdir_is_relative_to_the_one_before_and_belongs_to_the_user() -> None:
    graph = lowered("FROM scratch\nWORKDIR /a\nUSER 7\nWORKDIR b/../c\nRUN x\n")
    made = [i.vertex.operation for i in graph.instructions if i.vertex]
    assert made[:2] == [MakeDirectory(path="/a"), MakeDirectory(path="/a/c", user="7")]
    assert isinstance(made[2], Exec) and (made[2].cwd, made[2].user) == ("/a/c", "7")
    assert created(graph)[0] == "WORKDIR /a"


def test_workdir_slash_makes_no_layer() -> None:
    graph = lowered("FROM scratch\nWORKDIR /\n")
    assert [i.vertex for i in graph.instructions] == [None]
    assert graph.config.config.working_dir == "/"


def test_expose_expands_ranges_and_variables() -> None:
    found = config('FROM scratch\nENV p="90 91/udp"\nEXPOSE 8000-8002/TCP $p 127.0.0.1:80:81\n')
    assert found.exposed_ports == ("8000/tcp", "8001/tcp", "8002/tcp", "81/tcp", "90/tcp", "91/udp")


@pytest.mark.parametrize("port", ["80/xyz", "70000", "9-8", "abc", "80:", "80:90-91", "1.2.3:80:80"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(DockerfileError, match="port"):
        lowered(f"FROM scratch\nEXPOSE {port}\n")


def test_healthcheck_is_kept_in_nanoseconds() -> None:
    found = config("FROM scratch\nHEALTHCHECK --interval=1m30s --timeout=1.5s --retries=3 CMD curl x\n")
    assert found.healthcheck == Healthcheck(("CMD-SHELL", "curl x"), 90_000_000_000, 1_500_000_000, retries=3)
    assert config("FROM scratch\nHEALTHCHECK NONE\n").healthcheck == Healthcheck(("NONE",))


@pytest.mark.parametrize("signal", ["SIGTERM", "term", "9", "SIGRTMIN+3", "RTMAX-1"])
def test_a_stop_signal_may_be_a_name_or_a_number(signal: str) -> None:
    assert config(f"FROM scratch\nSTOPSIGNAL {signal}\n").stop_signal == signal


@pytest.mark.parametrize("signal", ["SIGNOPE", "0", "65", "RTMIN+16", "RTMAX+1"])
def test_an_unknown_signal_is_refused(signal: str) -> None:
    with pytest.raises(DockerfileError, match="invalid signal"):
        lowered(f"FROM scratch\nSTOPSIGNAL {signal}\n")


def test_labels_of_the_command_line_reach_the_final_image_only_and_win() -> None:
    graph = lowered("FROM scratch AS a\nLABEL x=1 y=1\nFROM a\n", labels={"x": "2", "z": "3"})
    assert graph.config.config.labels == {"x": "2", "y": "1", "z": "3"}


def test_maintainer_is_the_author() -> None:
    graph = lowered("FROM scratch\nMAINTAINER someone <a@b>\n")
    assert graph.config.author == "someone <a@b>"


def test_onbuild_fires_in_the_child_and_leaves_no_history() -> None:
    graph = lowered("FROM scratch AS a\nONBUILD ENV fired=1\nONBUILD RUN x\nFROM a\nRUN y\n")
    assert created(graph) == ["ENV fired=1", "RUN /bin/sh -c x # buildkit", "RUN /bin/sh -c y # buildkit"]
    assert graph.config.config.on_build == ()
    assert [i.vertex.label for i in graph.instructions if i.vertex] == [
        "[stage-1 1/2] ONBUILD RUN x",
        "[stage-1 2/2] RUN y",
    ]


def test_onbuild_of_the_image_is_kept_with_its_heredoc() -> None:
    graph = lowered("FROM scratch\nONBUILD RUN <<EOF\necho a\nEOF\n")
    assert graph.config.config.on_build == ("RUN <<EOF\necho a\nEOF",)


def test_a_broken_trigger_is_told_where_it_fires() -> None:
    assert lowered("FROM scratch\nONBUILD COPY x\n").config.config.on_build == ("COPY x",)
    with pytest.raises(DockerfileError, match="ONBUILD trigger `COPY x`: COPY requires") as caught:
        lowered("FROM scratch\nFROM base\n", {BASE: ContainerConfig(on_build=("COPY x",))})
    assert caught.value.span is not None and caught.value.span.line == 2


def test_workdir_of_nothing_stays_where_it_is() -> None:
    assert config("FROM scratch\nWORKDIR /a\nWORKDIR $nothing\n").working_dir == "/a"
    assert config("FROM scratch\nWORKDIR /a/\nWORKDIR $nothing\n").working_dir == "/a/"
    assert config("FROM scratch\nWORKDIR /a/../\nWORKDIR $nothing\n").working_dir == "/a/../"


def test_a_trigger_of_a_base_image_may_copy_from_a_stage_or_another_image() -> None:
    images = {BASE: ContainerConfig(on_build=("COPY --from=tools /t /t", "COPY --from=other /o /o"))}
    graph = lowered("FROM scratch AS tools\nRUN make\nFROM base\n", images)
    assert created(graph) == ["COPY /t /t # buildkit", "COPY /o /o # buildkit"]
    copied = graph.root.inputs[1].operation
    assert copied.reference == "docker.io/library/other:latest"  # type: ignore[union-attr]


def test_history_is_spelled_as_buildkit_spells_it() -> None:
    text = """FROM scratch
LABEL a="b c"
USER 1:2
EXPOSE 80
VOLUME ["/a", "/b"]
STOPSIGNAL 9
SHELL ["/bin/bash", "-c"]
CMD echo "hi"
HEALTHCHECK --interval=5s CMD true
COPY --chown=1:2 --chmod=755 a b /c/
ADD x /y
RUN ["a", "b"]
"""
    assert created(lowered(text)) == [
        "LABEL a=b c",
        "USER 1:2",
        "EXPOSE [80/tcp]",
        "VOLUME [/a /b]",
        "STOPSIGNAL 9",
        "SHELL [/bin/bash -c]",
        'CMD ["/bin/bash" "-c" "echo \\"hi\\""]',
        "HEALTHCHECK {Test:[CMD-SHELL true] Interval:5s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
        "COPY --chown=1:2 --chmod=755 a b /c/ # buildkit",
        "ADD x /y # buildkit",
        "RUN a b # buildkit",
    ]


def test_bytes_that_are_no_utf8_do_not_reach_the_config() -> None:
    graph = lowered("FROM scratch\nENV a=1\n")
    from builder.dockerfile import parse_dockerfile
    from builder.lower import lower
    from registry_client.oci.config import dump_config
    from tests.support.dockerfile import options_with

    dockerfile = parse_dockerfile(b"FROM scratch\nLABEL a=\xff\nRUN <<EOF\n\xfe\nEOF\n")
    graph = lower(dockerfile, options_with(), {})
    assert "\ufffd" in dump_config(graph.config).decode()
    run = graph.root.operation
    assert isinstance(run, Exec) and run.argv[-1].encode("utf-8", "surrogateescape") == b"\xfe\n"
    assert all(text.encode() for text in created(graph))


def test_words_are_quoted_as_go_quotes_them() -> None:
    assert go_quote('a "b" \\ é 日') == '"a \\"b\\" \\\\ é 日"'
    assert go_quote("\x07\v\x01\x7f\xa0\u3000\U000e0001") == r'"\a\v\x01\x7f\u00a0\u3000\U000e0001"'


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (300_000_000, "300ms"),
        (90_000_000_000, "1m30s"),
        (3_723_500_000_000, "1h2m3.5s"),
    ],
)
def test_durations_are_written_as_go_writes_them(nanoseconds: int, text: str) -> None:
    assert go_duration(nanoseconds) == text
    assert parse_duration(text) == nanoseconds
