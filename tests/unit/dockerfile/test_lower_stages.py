"""Stages: what FROM and --from mean, which stages count, and what is wrong with the rest (FEATURES A-38, A-71, A-89 … A-92)."""

from __future__ import annotations

import pytest

from builder.dockerfile import DockerfileError, parse_dockerfile
from builder.graph import (
    Copy,
    CopySource,
    Exec,
    GitSource,
    HttpSource,
    ImageSource,
    LocalSource,
    Scratch,
    StageGraph,
)
from builder.lower import bases, lower
from registry_client.oci.config import ContainerConfig
from registry_client.oci.platform import Platform
from runtime.errors import InvalidInput
from tests.support.dockerfile import created, lowered, options_with, resolved


def wanted(text: str, **options: object) -> list[str]:
    return [base.reference for base in bases(parse_dockerfile(text), options_with(**options))]


def labels(graph: StageGraph) -> list[str]:
    return [i.vertex.label for i in graph.instructions if i.vertex]


def test_only_images_of_reachable_stages_are_wanted() -> None:
    text = "FROM one AS a\nFROM two AS b\nFROM three AS c\nCOPY --from=a /x /\nRUN --mount=from=four,target=/m x\n"
    assert wanted(text) == [
        "docker.io/library/three:latest",
        "docker.io/library/four:latest",
        "docker.io/library/one:latest",
    ]
    assert wanted(text, target="b") == ["docker.io/library/two:latest"]


def test_a_target_is_found_in_any_case_and_a_wrong_one_gets_a_hint() -> None:
    text = "FROM scratch AS Build\nFROM scratch AS test\n"
    assert lowered(text, target="BUILD").name == "build"
    with pytest.raises(InvalidInput, match="target stage 'biuld' could not be found") as caught:
        lowered(text, target="biuld")
    assert "`build`" in caught.value.hint


def test_from_takes_the_latest_earlier_stage_and_only_in_lower_case() -> None:
    text = "FROM one AS a\nFROM two AS a\nFROM a\nFROM A\n"
    with pytest.raises(DockerfileError, match="lower case"):
        wanted(text)
    assert wanted("FROM one AS a\nFROM two AS a\nFROM a\n") == ["docker.io/library/two:latest"]


def test_a_stage_defined_later_is_an_image_for_from() -> None:
    assert wanted("FROM b\nFROM scratch AS b\nFROM scratch\n", target="") == []
    assert wanted("FROM b AS x\nFROM scratch AS b\n", target="x") == ["docker.io/library/b:latest"]


def test_copy_from_takes_the_last_stage_of_a_name_in_any_case() -> None:
    text = "FROM one AS a\nFROM two AS a\nFROM scratch\nCOPY --from=A /x /\n"
    assert wanted(text) == ["docker.io/library/two:latest"]


def test_copy_from_takes_an_index_and_a_mount_does_not() -> None:
    text = "FROM one AS a\nFROM scratch\n"
    assert wanted(text + "COPY --from=0 /x /\n") == ["docker.io/library/one:latest"]
    assert wanted(text + "RUN --mount=from=0,target=/m x\n") == ["docker.io/library/0:latest"]
    with pytest.raises(DockerfileError, match="invalid stage index 7"):
        wanted(text + "COPY --from=7 /x /\n")


def test_copying_from_a_later_stage_is_refused_with_both_lines() -> None:
    with pytest.raises(DockerfileError, match="needs to be defined before current stage 'a'") as caught:
        wanted("FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\n", target="a")
    assert "line 3" in caught.value.hint and "line 1" in caught.value.hint
    assert caught.value.span is not None and caught.value.span.line == 2


def test_a_circle_is_told_with_its_lines() -> None:
    text = "FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\nCOPY --from=a /x /\n"
    with pytest.raises(
        DockerfileError, match=r"circular dependency.*a \(line 1\) -> b \(line 3\) -> a \(line 1\)"
    ):
        wanted(text)
    with pytest.raises(DockerfileError, match="circular dependency"):
        wanted("FROM scratch AS a\nCOPY --from=a /x /\n")


def test_unreachable_stages_may_be_wrong_about_their_variables() -> None:
    graph = lowered("FROM scratch AS a\nENV x=${y:?no}\nFROM scratch AS b\nRUN x\n")
    assert created(graph) == ["RUN /bin/sh -c x # buildkit"]


def test_the_history_of_the_parent_stage_comes_first() -> None:
    graph = lowered("FROM base AS a\nRUN one\nFROM a\nRUN two\n")
    assert created(graph) == ["RUN /bin/sh -c one # buildkit", "RUN /bin/sh -c two # buildkit"]
    assert isinstance(graph.base.operation, ImageSource)
    assert graph.base_config is not None and graph.base_config.config.cmd == ("sh",)


def test_steps_are_numbered_as_buildkit_numbers_them() -> None:
    text = "FROM base AS a\nENV x=1\nWORKDIR /w\nCOPY . .\nRUN make $x\nCMD x\n"
    graph = lowered(text)
    assert graph.base.label == "[a 1/4] FROM docker.io/library/base:latest"
    assert labels(graph) == ["[a 2/4] WORKDIR /w", "[a 3/4] COPY . .", "[a 4/4] RUN make 1"]
    assert labels(lowered("FROM scratch\nRUN x\n")) == ["[1/1] RUN x"]


def test_a_label_does_not_show_a_secret_or_an_unset_variable() -> None:
    graph = lowered("FROM scratch\nENV TOKEN=abc\nRUN --mount=type=secret,id=t,env=TOKEN use $TOKEN $nope\n")
    assert labels(graph) == ["[1/1] RUN --mount=type=secret,id=t,env=TOKEN use **** $nope"]


def test_vertices_of_a_stage_used_twice_are_the_same() -> None:
    text = "FROM scratch AS a\nRUN make\nFROM scratch\nCOPY --from=a /x /\nCOPY --from=a /y /\n"
    graph = lowered(text)
    first, second = (i.vertex for i in graph.instructions if i.vertex)
    assert first is not None and second is not None
    assert first.inputs[1] == second.inputs[1]


def test_the_platform_of_a_from_is_for_that_stage() -> None:
    text = "FROM --platform=$BUILDPLATFORM one AS a\nRUN x\nFROM two\nCOPY --from=a /x /\n"
    dockerfile = parse_dockerfile(text)
    options = options_with(platform=Platform("linux", "arm64"))
    platforms = {base.reference.rpartition("/")[2]: str(base.platform) for base in bases(dockerfile, options)}
    assert platforms == {"two:latest": "linux/arm64", "one:latest": "linux/amd64"}
    graph = lower(dockerfile, options, resolved(dockerfile, options))
    assert str(graph.config.platform) == "linux/arm64"


def test_an_empty_platform_is_explained() -> None:
    with pytest.raises(DockerfileError, match="failed to parse platform") as caught:
        wanted("FROM --platform=$BUILDPLATFROM scratch\n")
    assert "`BUILDPLATFORM`" in caught.value.hint


def test_a_blank_base_is_explained() -> None:
    with pytest.raises(DockerfileError, match="should not be blank"):
        wanted("FROM $nothing\n")


def test_no_cache_is_for_all_or_for_the_stages_named() -> None:
    text = "FROM scratch AS a\nRUN x\nFROM a AS b\nRUN y\n"

    def flags(**o: object) -> list[bool]:
        return [i.vertex.no_cache for i in lowered(text, **o).instructions if i.vertex]

    assert flags(no_cache=True) == [True, True]
    assert flags(no_cache_filter=frozenset({"b"})) == [False, True]


# --- named contexts -----------------------------------------------------------------------------------------------


def test_a_named_context_replaces_an_image() -> None:
    contexts = {"debian": "docker-image://alpine:3"}
    assert wanted("FROM debian\n", contexts=contexts) == ["docker.io/library/alpine:3"]
    assert wanted("FROM debian:12\n", contexts=contexts) == ["docker.io/library/debian:12"]


def test_a_named_context_replaces_a_stage_with_all_it_does() -> None:
    graph = lowered("FROM one AS a\nRUN never\nFROM a\nRUN x\n", contexts={"a": "docker-image://two"})
    assert created(graph) == ["RUN /bin/sh -c x # buildkit"]
    assert isinstance(graph.base.operation, ImageSource) and "two" in graph.base.operation.reference


def test_a_directory_can_be_copied_from_and_can_be_a_base() -> None:
    graph = lowered("FROM scratch\nCOPY --from=files /x /y\n", contexts={"files": "/some/where"})
    assert graph.root.inputs[1].operation == LocalSource(name="files")
    graph = lowered("FROM files\n", contexts={"files": "/some/where"})
    assert isinstance(graph.base.operation, Scratch)
    assert graph.root.inputs[1].operation == LocalSource(name="files")


def test_scratch_cannot_be_replaced() -> None:
    assert isinstance(
        lowered("FROM scratch\n", contexts={"scratch": "docker-image://x"}).base.operation, Scratch
    )


# --- COPY, ADD, RUN -----------------------------------------------------------------------------------------------


def copy_of(line: str, before: str = "") -> Copy:
    operation = lowered(f"FROM scratch\n{before}{line}\n").root.operation
    assert isinstance(operation, Copy)
    return operation


@pytest.mark.parametrize(
    ("dest", "absolute"),
    [
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("b", "/w/b"),
        (".", "/w/"),
        ("./", "/w/"),
        ("../c/", "/c/"),
        ("/", "/"),
        ("/a/.", "/a/"),
    ],
)
def test_a_destination_is_relative_to_the_workdir_and_keeps_its_slash(dest: str, absolute: str) -> None:
    assert copy_of(f"COPY x {dest}", "WORKDIR /w\n").dest == absolute


@pytest.mark.parametrize(
    ("source", "path"), [("/a/b/", "a/b"), ("../../a", "a"), (".", "."), ("/", "."), ("./a/../b", "b")]
)
def test_a_source_stays_within_its_root(source: str, path: str) -> None:
    assert copy_of(f"COPY {source} /x").sources == (CopySource(input=1, paths=(path,)),)


def test_the_delimiter_of_a_heredoc_names_one_file() -> None:
    assert copy_of("COPY <<../x /y/\ntext\n../x").sources[0].paths == ("x",)
    for delimiter in ("a/b", ".."):
        with pytest.raises(DockerfileError, match="names no file"):
            copy_of(f"COPY <<{delimiter} /y/\ntext\n{delimiter}")


def test_parents_keeps_the_pivot() -> None:
    assert copy_of("COPY --parents ./a/./b/../c /x/").sources[0].paths == ("a/./c",)


def test_add_unpacks_local_archives_unless_told_not_to() -> None:
    assert copy_of("ADD a.tar /x/").sources[0].unpack is True
    assert copy_of("ADD --unpack=false a.tar /x/").sources[0].unpack is False
    assert copy_of("COPY a.tar /x/").sources[0].unpack is False


def test_add_takes_urls_and_repositories_in_their_order() -> None:
    graph = lowered("FROM scratch\nADD a https://h/b.tgz https://h/c.git#v1:sub d e /x/\n")
    operation = graph.root.operation
    assert isinstance(operation, Copy)
    assert [source.paths for source in operation.sources] == [("a",), ("b.tgz",), (".",), ("d", "e")]
    assert graph.root.inputs[2].operation == HttpSource(url="https://h/b.tgz", filename="b.tgz")
    assert graph.root.inputs[3].operation == GitSource(url="https://h/c.git", ref="v1", subdir="sub")


def test_copy_refuses_remote_sources() -> None:
    with pytest.raises(DockerfileError, match="source can't be a URL for COPY"):
        copy_of("COPY https://h/x /y")


@pytest.mark.parametrize("mode", ["9", "77777", "rwx", "u=rw,q+x"])
def test_a_mode_that_is_none_is_refused(mode: str) -> None:
    with pytest.raises(DockerfileError, match="invalid chmod"):
        copy_of(f"COPY --chmod={mode} a /b")


@pytest.mark.parametrize("mode", ["755", "0644", "u=rwX,go=rX", "+x", "g=u", "a-w"])
def test_a_mode_may_be_octal_or_symbolic(mode: str) -> None:
    assert copy_of(f"COPY --chmod={mode} a /b").mode == mode


def test_a_checksum_needs_one_remote_source() -> None:
    digest = "sha256:" + "a" * 64
    with pytest.raises(DockerfileError, match="requires an HTTP"):
        copy_of(f"ADD --checksum={digest} a /b")
    with pytest.raises(DockerfileError, match="multiple sources"):
        copy_of(f"ADD --checksum={digest} https://h/a https://h/b /b/")
    assert copy_of(f"ADD --checksum={digest} https://h/a /b")


def test_heredocs_of_copy_are_expanded_unless_quoted() -> None:
    text = 'FROM scratch\nENV v=1\nCOPY <<a <<"b" <<-c /x/\n$v "quoted" \\$v\na\n$v\nb\n\t\ttabs $v\n\tc\n'
    inline = lowered(text).root.inputs[1].operation
    assert inline.files == (("a", b'1 "quoted" $v\n'), ("b", b"$v\n"), ("c", b"tabs 1\n"))  # type: ignore[union-attr]


def run_of(lines: str, **options: object) -> Exec:
    operation = lowered(f"FROM scratch\n{lines}\n", **options).root.operation
    assert isinstance(operation, Exec)
    return operation


def test_a_heredoc_alone_is_one_shell_command() -> None:
    assert run_of("RUN <<EOF\nfalse\necho on\nEOF").argv == ("/bin/sh", "-c", "false\necho on\n")


def test_a_heredoc_with_a_shebang_is_a_script() -> None:
    found = run_of("RUN <<-EOF\n\t#!/usr/bin/python3\n\tprint(1)\n\tEOF")
    assert found.argv == ("/bin/sh", "-c", "/dev/pipes/EOF")
    assert found.files == (("EOF", b"#!/usr/bin/python3\nprint(1)\n"),)


def test_a_heredoc_for_a_command_is_left_to_the_shell() -> None:
    found = run_of("RUN cat <<EOF > /f && cat <<-'X'\n$a\nEOF\n\ttabbed\n\tX")
    assert found.argv[-1] == "cat <<EOF > /f && cat <<-'X'\n$a\nEOF\n\ttabbed\nX"


def test_mounts_get_their_defaults() -> None:
    found = run_of(
        "ENV d=cache\nWORKDIR /w\n"
        "RUN --mount=target=/b --mount=type=cache,target=$d --mount=type=tmpfs,target=/t,size=1m"
        " --mount=type=secret,id=a/key --mount=type=secret,id=e,env=E --mount=type=ssh x"
    )
    bind, cache, tmpfs, secret, env, ssh = found.mounts
    assert (bind.type, bind.readonly, bind.input) == ("bind", True, 1)
    assert (cache.target, cache.id, cache.readonly, cache.sharing) == ("/w/cache", "cache", False, "shared")
    assert (tmpfs.size, tmpfs.input) == (1 << 20, -1)
    assert (secret.target, secret.mode, secret.required) == ("/run/secrets/key", 0o400, False)
    assert (env.target, env.env, env.id) == ("", "E", "e")
    assert (ssh.id, ssh.target, ssh.mode) == ("default", "/run/buildkit/ssh_agent.5", 0o600)


def test_cache_mounts_have_a_namespace_of_their_own_if_asked() -> None:
    found = run_of("RUN --mount=type=cache,target=/c x", build_args={"BUILDKIT_CACHE_MOUNT_NS": "ns"})
    assert found.mounts[0].id == "ns//c"


def test_fields_of_a_mount_are_csv() -> None:
    found = run_of('RUN --mount=\'type=cache,"target=/a,""b""",ID=x,Sharing=LOCKED,ro=false\' x')
    (mount,) = found.mounts
    assert (mount.target, mount.id, mount.sharing, mount.readonly) == ("/a,b", "x", "locked", False)
    with pytest.raises(DockerfileError, match="invalid quotes in mount"):
        run_of("RUN --mount='type=cache,\"target=/a' x")


def test_a_secrets_variable_has_a_name() -> None:
    with pytest.raises(DockerfileError, match="needs the name of a variable"):
        run_of("RUN --mount=type=secret,id=a,env= x")


def test_a_mount_on_the_root_is_refused() -> None:
    with pytest.raises(DockerfileError, match="invalid mount target"):
        run_of("RUN --mount=type=tmpfs,target=/ x")


def test_network_and_security_are_those_of_the_run_or_of_the_build() -> None:
    assert run_of("RUN x", network="none").network == "none"
    found = run_of("RUN --network=host --security=insecure x", network="none")
    assert (found.network, found.security) == ("host", "insecure")


def test_the_base_images_workdir_and_user_are_in_force() -> None:
    images = {"docker.io/library/b:latest": ContainerConfig(working_dir="srv", user="7")}
    operation = lowered("FROM b\nRUN x\n", images).root.operation
    assert isinstance(operation, Exec) and (operation.cwd, operation.user) == ("/srv", "7")
