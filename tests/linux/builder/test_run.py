"""RUN in real builds: the sandbox, what is mounted, what stays out of the layer (FEATURES A-56…A-63, B-25, B-26)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.builder import build_text, config_of, contents_of, layers_of, log_of, run_pipe, write_files

pytestmark = pytest.mark.linux
EMPTY_TAR = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write_files(tmp_path / "c", {})


def output(root: Path, context: Path, dockerfile: str, *arguments: str) -> str:
    return log_of(root, context, "-f", "-", *arguments, stdin=dockerfile.encode())


def test_a_step_is_isolated_as_docker_does(root: Path, context: Path) -> None:
    dockerfile = "FROM base:1\nRUN grep -E '^(Cap(Eff|Bnd)|Seccomp):' /proc/self/status; hostname; echo pid $$; ls /sys/firmware | wc -l; grep ' / / ' /proc/self/mountinfo\n"
    text = output(root, context, dockerfile)
    assert "CapEff:\t00000000a80425fb" in text
    assert "CapBnd:\t00000000a80425fb" in text
    assert "Seccomp:\t2" in text
    assert "buildkitsandbox" in text
    assert "pid 1" in text
    assert "overlay overlay" in text


def test_the_size_of_shared_memory_and_resource_limits_reach_a_step(root: Path, context: Path) -> None:
    dockerfile = "FROM base:1\nRUN df -k /dev/shm | grep -o ' 32768 ' | head -n 1; echo files $(ulimit -n)\n"
    text = output(root, context, dockerfile, "--shm-size", "32m", "--ulimit", "nofile=99:100")
    assert " 32768 " in text
    assert "files 99" in text
    failed = run_pipe(root, "build", "--ulimit", "nofiles=1", str(context), code=2)
    assert b"did you mean `nofile`" in failed.stderr
    failed = run_pipe(root, "build", "--allow", "network.hosts", str(context), code=2)
    assert b"did you mean `network.host`" in failed.stderr


def test_an_empty_step_is_still_a_layer(root: Path, context: Path) -> None:
    image = build_text(root, context, "FROM base:1\nRUN true\n")
    assert config_of(root, image)["rootfs"]["diff_ids"][-1] == EMPTY_TAR


def test_no_mount_point_lands_in_a_layer(root: Path, context: Path) -> None:
    dockerfile = """FROM base:1
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=tmpfs,target=/scratch --mount=type=secret,id=a \\
    --mount=type=bind,target=/src echo > /made
"""
    image = build_text(root, context, dockerfile)
    assert sorted(layers_of(root, image)[-1]) == ["made"]


def test_mount_points_that_a_layer_hides_are_cleaned_away(root: Path, context: Path) -> None:
    dockerfile = """FROM base:1
RUN mkdir -p /run/secrets/deep
RUN rm -rf /run && mkdir /run
RUN --mount=type=cache,target=/run/secrets/x echo > /made
"""
    image = build_text(root, context, dockerfile)
    assert sorted(layers_of(root, image)[-1]) == ["made"]


def test_deleted_files_become_whiteouts(root: Path, context: Path) -> None:
    image = build_text(
        root, context, "FROM base:1\nRUN mkdir /d && echo > /d/x\nRUN rm /etc/group && rm -r /d && mkdir /d\n"
    )
    assert {"etc/.wh.group", "d/.wh..wh..opq"} <= set(layers_of(root, image)[-1])


def test_hosts_and_resolv_conf_are_mounts(root: Path, context: Path) -> None:
    dockerfile = "FROM base:1\nRUN cat /etc/hosts && grep -c nameserver /etc/resolv.conf && mount | grep -c /etc/hosts\n"
    text = output(root, context, dockerfile, "--add-host", "db:10.1.2.3")
    assert "10.1.2.3\tdb" in text
    image = build_text(root, context, "FROM base:1\nRUN echo > /made\n")
    assert "etc/hosts" not in layers_of(root, image)[-1]


def test_env_and_args_are_seen_and_the_working_directory_and_user_hold(root: Path, context: Path) -> None:
    dockerfile = (
        "FROM base:1\nARG A=1\nENV B=2\nWORKDIR /w\nUSER app:web\nRUN echo $A-$B-$(pwd)-$(id -u)-$(id -g)\n"
    )
    assert "5-2-/w-1000-3000" in output(root, context, dockerfile, "--build-arg", "A=5")


def test_the_network_can_be_none_or_the_hosts(root: Path, context: Path) -> None:
    assert "links lo:" in output(
        root, context, "FROM base:1\nRUN --network=none echo links $(ls /sys/class/net | tr '\\n' ':')\n"
    )
    refused = run_pipe(
        root, "build", "-f", "-", str(context), stdin=b"FROM base:1\nRUN --network=host true\n", code=None
    )
    assert refused.returncode == 1
    assert b"network.host" in refused.stderr
    text = output(
        root,
        context,
        "FROM base:1\nRUN --network=host readlink /proc/self/ns/net\n",
        "--allow",
        "network.host",
    )
    assert os.readlink("/proc/thread-self/ns/net") in text


def test_the_default_network_has_a_way_out(root: Path, context: Path) -> None:
    assert "default via" in output(root, context, "FROM base:1\nRUN ip route\n")


# --- mounts -------------------------------------------------------------------------------------------------------


def test_a_bind_shows_the_context_as_the_build_sees_it(root: Path, tmp_path: Path) -> None:
    context = write_files(
        tmp_path / "c", {".dockerignore": "hidden\n", "hidden": "1", "seen": "2", "d/x": "3"}
    )
    os.chown(context / "seen", 5, 5)
    dockerfile = """FROM base:1
RUN --mount=type=bind,target=/src ls /src && stat -c owner-%u /src/seen && if touch /src/new; then false; fi
RUN --mount=type=bind,source=d/x,target=/one,rw cat /one && echo changed > /one
RUN --mount=type=bind,from=base:1,source=/etc,target=/base-etc grep -c app /base-etc/passwd
"""
    text = output(root, context, dockerfile)
    assert "hidden" not in text
    assert "owner-0" in text
    assert (context / "d/x").read_text() == "3"


def test_changing_a_bound_file_runs_the_step_again(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {"a": "first", "b": "1"})
    dockerfile = "FROM base:1\nRUN --mount=type=bind,source=a,target=/a cat /a > /copy\n"
    first = build_text(root, context, dockerfile)
    (context / "b").write_text("2")
    assert build_text(root, context, dockerfile) == first
    (context / "a").write_text("second")
    assert contents_of(root, context, ["copy"], "-f", "-", stdin=dockerfile.encode()) == {"copy": b"second"}


def test_a_cache_mount_survives_builds_and_is_in_no_key(root: Path, context: Path, tmp_path: Path) -> None:
    name = f"cache-{tmp_path.name}"
    count = f"RUN --mount=type=cache,id={name},target=/c echo x >> /c/list && echo lines $(wc -l < /c/list)"
    assert "lines 1" in output(root, context, f"FROM base:1\n{count}\n")
    assert "CACHED" in output(root, context, f"FROM base:1\n{count}\n")
    assert "lines 2" in output(root, context, f"FROM base:1\nRUN true\n{count}\n")


def test_a_new_cache_mount_is_seeded_and_has_the_owner_asked_for(
    root: Path, context: Path, tmp_path: Path
) -> None:
    dockerfile = f"""FROM base:1
USER app
RUN --mount=type=cache,id=seed-{tmp_path.name},target=/c,from=base:1,source=/etc,uid=1000,gid=2000,mode=0700 \\
    ls /c && stat -c is-%u-%g-%a /c && touch /c/mine
"""
    text = output(root, context, dockerfile)
    assert "passwd" in text
    assert "is-1000-2000-700" in text


def test_locked_and_private_cache_mounts(root: Path, context: Path, tmp_path: Path) -> None:
    def stage(name: str, sharing: str) -> str:
        script = "test ! -e /c/busy && touch /c/busy && sleep 0.2 && rm /c/busy"
        mount = f"--mount=type=cache,id={sharing}-{tmp_path.name},target=/c,sharing={sharing}"
        return f"FROM base:1 AS {name}\nRUN {mount} {script} && echo > /{name}\n"

    for sharing in ("locked", "private"):
        dockerfile = stage("one", sharing) + stage("two", sharing)
        dockerfile += "FROM base:1\nCOPY --from=one /one /\nCOPY --from=two /two /\n"
        build_text(root, context, dockerfile)


def test_a_tmpfs_keeps_nothing(root: Path, context: Path) -> None:
    dockerfile = "FROM base:1\nRUN --mount=type=tmpfs,target=/t,size=1m echo > /t/x && df -k /t | tail -1\n"
    assert " 1024 " in output(root, context, dockerfile)


def test_a_secret_is_seen_and_leaves_no_trace(fresh_root: Path, tmp_path: Path) -> None:
    from tests.support.builder import busybox_context

    context = busybox_context(tmp_path / "c", {"token": "s3cr3t-t0ken-value\n"})
    dockerfile = """FROM scratch
COPY busybox /bin/busybox
RUN --mount=type=secret,id=token --mount=type=secret,id=token,target=/etc/t,mode=0444,uid=5 --mount=type=secret,id=var,env=VAR \\
    ["/bin/busybox", "sh", "-c", "busybox() { /bin/busybox \\"$@\\"; }; busybox stat -c 'is %a %u' /run/secrets/token /etc/t; busybox cat /run/secrets/token; echo $VAR; test -s /etc/t && echo done > /made"]
"""
    secrets = ("--secret", f"id=token,src={context / 'token'}", "--secret", "id=var,env=MY_VAR")
    env = {"MY_VAR": "an0ther-secret"}
    text = log_of(fresh_root, context, "-f", "-", *secrets, stdin=dockerfile.encode(), env=env)
    assert "is 400 0" in text
    assert "is 444 5" in text
    assert "s3cr3t-t0ken" not in text
    assert "an0ther-secret" not in text
    assert text.count("****") >= 2
    for directory, _, files in os.walk(fresh_root):
        for name in files:
            assert b"s3cr3t-t0ken" not in Path(directory, name).read_bytes(), os.path.join(directory, name)
            assert b"an0ther-secret" not in Path(directory, name).read_bytes(), os.path.join(directory, name)


def test_secrets_and_agents_may_be_missing_unless_required(root: Path, context: Path) -> None:
    build_text(root, context, "FROM base:1\nRUN --mount=type=secret,id=none test ! -e /run/secrets/none\n")
    for mount in ("secret,id=none,required", "ssh,required"):
        dockerfile = f"FROM base:1\nRUN --mount=type={mount} true\n"
        done = run_pipe(root, "build", "-f", "-", str(context), stdin=dockerfile.encode(), code=2)
        assert b"hint" in done.stderr.lower() or b"--s" in done.stderr


def test_heredoc_scripts_run(root: Path, context: Path) -> None:
    dockerfile = """FROM base:1
RUN <<EOF
false
echo still here
EOF
RUN <<EOF
#!/bin/sh -e
echo as a file $0
EOF
RUN cat <<EOF
by the shell
EOF
"""
    text = output(root, context, dockerfile)
    assert "still here" in text
    assert "as a file /dev/pipes/EOF" in text
    assert "by the shell" in text


# --- failing ------------------------------------------------------------------------------------------------------


def test_a_failing_step_shows_its_last_output_and_the_line(root: Path, tmp_path: Path) -> None:
    context = write_files(
        tmp_path / "c",
        {"Dockerfile": "FROM base:1\n\nRUN echo the reason && exit 7\nRUN echo not reached > /x\n"},
    )
    done = run_pipe(root, "build", str(context), code=1)
    text = (done.stdout + done.stderr).decode()
    assert "exit code 7" in text
    assert "the reason" in text
    assert "Dockerfile:3" in text


def test_a_missing_command_is_said_plainly(root: Path, context: Path) -> None:
    done = run_pipe(root, "build", "-f", "-", str(context), stdin=b'FROM base:1\nRUN ["/no/such"]\n', code=1)
    assert b"exit code 127" in done.stderr
    assert b"/no/such" in done.stderr


def test_a_failed_build_leaves_nothing_and_the_steps_before_stay_cached(root: Path, context: Path) -> None:
    marker = context.parent.name
    dockerfile = f"FROM base:1\nRUN echo {marker} > /x\nRUN false\n"
    run_pipe(root, "build", "-f", "-", str(context), stdin=dockerfile.encode(), code=1)
    assert os.listdir(root / "drafts") == []
    done = run_pipe(root, "build", "-f", "-", str(context), stdin=dockerfile.encode(), code=1)
    assert b"CACHED" in done.stdout + done.stderr


def test_output_is_clipped_where_buildkit_clips_it_but_what_failed_is_told(root: Path, context: Path) -> None:
    dockerfile = b"FROM base:1\nRUN head -c 9000000 /dev/zero | tr '\\0' x; echo; yes line | head -c 3000000; echo the end; exit 3\n"
    done = run_pipe(root, "build", "-f", "-", str(context), stdin=dockerfile, code=1)
    text = (done.stdout + done.stderr).decode()
    assert text.count("x" * 1000) > 2000 and len(text) < 3 << 20
    assert text.count("[output clipped, log limit 2MiB reached]") == 1
    assert "the end\n" in text.rpartition("clipped")[2]
