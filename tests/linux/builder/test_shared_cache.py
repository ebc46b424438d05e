"""`--cache-to` and `--cache-from`: caches between stores, judged by docker-registry, skopeo and GNU tar."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import busybox_context, log_of, run_pipe
from tests.support.embedded_registry import Served, embedded_registry
from tests.support.registry import ForeignRegistry, docker_registry

pytestmark = pytest.mark.linux

DOCKERFILE = """FROM scratch AS base
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
FROM base AS build
ARG WHO=me
WORKDIR /src
COPY a.txt .
RUN mkdir /out && cat a.txt > /out/a && head -c 300000 /dev/urandom > /heavy
RUN true
FROM base
WORKDIR /bin
COPY b.txt /b
COPY --from=build /out /out
RUN --mount=type=bind,from=build,source=/src,target=/m cat /m/a.txt > /copied
CMD ["sh"]
"""
STEPS = 10


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return busybox_context(
        tmp_path / "context",
        {
            "a.txt": "a",
            "b.txt": "b",
            "Dockerfile": DOCKERFILE,
            ".dockerignore": "Dockerfile\n.dockerignore\n",
        },
    )


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[ForeignRegistry]:
    with docker_registry(tmp_path) as registry:
        yield registry


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Served]:
    with embedded_registry(tmp_path / "served") as served:
        yield served


def build(root: Path, context: Path, *arguments: str) -> tuple[str, list[str]]:
    """The image id and what the build said."""
    log = log_of(root, context, "-t", "x", *arguments)
    return log.rsplit("sha256:", 1)[1].split()[0], log.splitlines()


def cached(log: list[str]) -> int:
    """How many steps were found; the build's own line says `CACHED sha256:…` and does not count."""
    return sum(line.endswith(" CACHED") for line in log)


def ran(log: list[str]) -> list[str]:
    """The steps that were carried out."""
    names = {line.split()[0]: line for line in log if "] " in line}
    return [names[line.split()[0]] for line in log if " DONE " in line and line.split()[0] in names]


def manifest_in(layout: Path, tag: str = "latest") -> dict[str, Any]:
    index = json.loads((layout / "index.json").read_text())
    (entry,) = [
        each for each in index["manifests"] if each["annotations"]["org.opencontainers.image.ref.name"] == tag
    ]
    record: dict[str, Any] = json.loads(blob_in(layout, entry["digest"]))
    return record


def blob_in(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


# --- a directory --------------------------------------------------------------------------------------------------


def test_a_fresh_store_finds_all_steps_in_a_directory_and_makes_the_same_image(
    fresh_root: Path, tmp_path: Path, context: Path
) -> None:
    first, _ = build(fresh_root, context, "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max")
    elsewhere = shutil.copytree(context, tmp_path / "another" / "directory")
    shutil.rmtree(context)
    again, log = build(tmp_path / "other", elsewhere, "--cache-from", f"type=local,src={tmp_path}/cache")
    assert again == first
    assert cached(log) == STEPS
    assert ran(log) == []
    shown = run_pipe(
        tmp_path / "other", "run", "--rm", "--network", "none", "x", "cat", "/copied", "/b"
    ).stdout
    assert shown == b"ab"


def test_only_layers_that_are_needed_are_fetched(fresh_root: Path, tmp_path: Path, context: Path) -> None:
    cache = tmp_path / "cache"
    build(fresh_root, context, "--cache-to", f"type=local,dest={cache},mode=max")
    sizes = {layer["digest"]: layer["size"] for layer in manifest_in(cache)["layers"]}
    heavy = max((each for each in sizes if 300_000 <= sizes[each] < 400_000), key=sizes.__getitem__)
    # The stage whose files only found steps took is not needed: its layer may even be gone.
    (cache / "blobs" / heavy.replace(":", "/")).unlink()
    _, log = build(tmp_path / "other", context, "--cache-from", f"type=local,src={cache}")
    assert cached(log) == STEPS


def test_a_change_rebuilds_only_from_there(fresh_root: Path, tmp_path: Path, context: Path) -> None:
    build(fresh_root, context, "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max")
    (context / "b.txt").write_text("other")
    _, log = build(tmp_path / "other", context, "--cache-from", f"type=local,src={tmp_path}/cache")
    assert [line.partition("] ")[2] for line in ran(log)] == [
        "COPY b.txt /b",
        "COPY --from=build /out /out",
        "RUN --mount=type=bind,from=build,source=/src,target=/m cat /m/a.txt > /copied",
    ]
    shown = run_pipe(
        tmp_path / "other", "run", "--rm", "--network", "none", "x", "cat", "/out/a", "/copied", "/b"
    )
    assert shown.stdout == b"aaother"


def test_min_has_the_layers_of_the_result_only_and_is_still_found_whole(
    fresh_root: Path, tmp_path: Path, context: Path
) -> None:
    to = [f"type=local,dest={tmp_path}/min", f"type=local,dest={tmp_path}/max,mode=max"]
    first, _ = build(fresh_root, context, "--cache-to", to[0], "--cache-to", to[1])
    assert len(manifest_in(tmp_path / "max")["layers"]) > len(manifest_in(tmp_path / "min")["layers"]) == 5
    again, log = build(tmp_path / "other", context, "--cache-from", f"type=local,src={tmp_path}/min")
    assert (again, cached(log)) == (first, STEPS)


def test_a_stage_without_layers_is_built_when_a_later_step_wants_its_files(
    fresh_root: Path, tmp_path: Path, context: Path
) -> None:
    build(fresh_root, context, "--cache-to", f"type=local,dest={tmp_path}/cache")
    (context / "Dockerfile").write_text(DOCKERFILE.replace("/out /out", "/src /sources"))
    _, log = build(tmp_path / "other", context, "--cache-from", f"type=local,src={tmp_path}/cache")
    assert any("RUN mkdir /out" in line for line in ran(log))
    shown = run_pipe(tmp_path / "other", "run", "--rm", "--network", "none", "x", "cat", "/sources/a.txt")
    assert shown.stdout == b"a"


def test_an_import_can_be_exported_again_with_layers_that_were_never_fetched(
    fresh_root: Path, tmp_path: Path, context: Path
) -> None:
    build(fresh_root, context, "--cache-to", f"type=local,dest={tmp_path}/first,mode=max")
    taken = ["--cache-from", f"type=local,src={tmp_path}/first"]
    build(tmp_path / "b", context, *taken, "--cache-to", f"type=local,dest={tmp_path}/second,mode=max")
    assert manifest_in(tmp_path / "first") == manifest_in(tmp_path / "second")
    _, log = build(tmp_path / "c", context, "--cache-from", f"type=local,src={tmp_path}/second")
    assert cached(log) == STEPS


def test_the_directory_is_a_layout_whose_blobs_are_what_they_are_called(
    fresh_root: Path, tmp_path: Path, context: Path
) -> None:
    cache = tmp_path / "cache"
    build(fresh_root, context, "--cache-to", f"type=local,dest={cache},mode=max,tag=main")
    build(fresh_root, context, "--cache-to", f"type=local,dest={cache},tag=other,compression=zstd")
    for blob in (cache / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    manifest = manifest_in(cache, "main")
    config = json.loads(blob_in(cache, manifest["config"]["digest"]))
    for layer, diff_id in zip(manifest["layers"], config["diff_ids"], strict=True):
        plain = gzip.decompress(blob_in(cache, layer["digest"]))
        assert "sha256:" + hashlib.sha256(plain).hexdigest() == diff_id
        subprocess.run(["tar", "tf", "-"], input=plain, check=True, stdout=subprocess.DEVNULL)
    texts = json.dumps(config)
    assert str(tmp_path) not in texts  # nothing of the machine
    assert {record["kind"] for record in config["records"]} == {"exec.v1", "copy.v1", "directory.v1"}
    if shutil.which("skopeo"):
        for tag in ("main", "other"):
            subprocess.run(
                ["skopeo", "inspect", "--raw", f"oci:{cache}:{tag}"], check=True, capture_output=True
            )
    build(fresh_root, context, "--cache-to", f"type=local,dest={cache},reset=true")
    kept = manifest_in(cache)
    needed = {kept["config"]["digest"], *(layer["digest"] for layer in kept["layers"])}
    assert len(list((cache / "blobs" / "sha256").iterdir())) == len(needed) + 1


def test_the_same_build_gives_the_same_cache(fresh_root: Path, tmp_path: Path, context: Path) -> None:
    for name in ("one", "two"):
        build(fresh_root, context, "--cache-to", f"type=local,dest={tmp_path}/{name},mode=max")
    assert (tmp_path / "one" / "index.json").read_bytes() == (tmp_path / "two" / "index.json").read_bytes()


def test_why_names_the_file_in_a_store_that_only_knows_the_earlier_build_from_a_cache(
    fresh_root: Path, tmp_path: Path, context: Path
) -> None:
    build(fresh_root, context, "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max")
    (context / "b.txt").write_text("other")
    build(tmp_path / "other", context, "--cache-from", f"type=local,src={tmp_path}/cache")
    told = run_pipe(tmp_path / "other", "why", "x", "COPY b.txt").stdout.decode()
    assert "file b.txt: mode 0644, owner 0:0, 1 bytes" in told
    assert "5 bytes" in told
    assert "never" not in told


# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_place_without_a_cache_is_a_warning_and_the_next_one_serves(
    fresh_root: Path, tmp_path: Path, context: Path
) -> None:
    build(fresh_root, context, "--cache-to", f"type=local,dest={tmp_path}/good,mode=max")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "index.json").write_text("{broken")
    sources = [
        f"type=local,src={tmp_path}/nowhere",
        f"type=local,src={tmp_path}/bad",
        "127.0.0.1:1/nobody/listens:1",
        f"type=local,src={tmp_path}/good",
    ]
    flags = [word for source in sources for word in ("--cache-from", source)]
    _, log = build(tmp_path / "other", context, *flags)
    assert cached(log) == STEPS
    for name in ("nowhere", "bad", "nobody/listens"):
        assert any("no cache from" in line and name in line for line in log), log


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_lost_or_damaged_layer_is_a_warning_and_its_step_runs(
    fresh_root: Path, tmp_path: Path, context: Path, how: str
) -> None:
    cache = tmp_path / "cache"
    build(fresh_root, context, "--cache-to", f"type=local,dest={cache}")
    blob = cache / "blobs" / manifest_in(cache)["layers"][1]["digest"].replace(":", "/")
    if how == "missing":
        blob.unlink()
    else:
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.write_bytes(data)
    _, log = build(tmp_path / "other", context, "--cache-from", f"type=local,src={cache}")
    assert any("is left out" in line for line in log)
    assert any("--install" in line for line in ran(log))
    shown = run_pipe(
        tmp_path / "other", "run", "--rm", "--network", "none", "x", "cat", "/copied", "/b"
    ).stdout
    assert shown == b"ab"


def test_a_layer_that_is_not_what_the_cache_says_is_refused(
    fresh_root: Path, tmp_path: Path, context: Path
) -> None:
    """Blobs are right, their meaning is not: two layers are exchanged in the config."""
    cache = tmp_path / "cache"
    build(fresh_root, context, "--cache-to", f"type=local,dest={cache}")
    manifest = manifest_in(cache)
    config = json.loads(blob_in(cache, manifest["config"]["digest"]))
    config["diff_ids"][0], config["diff_ids"][1] = config["diff_ids"][1], config["diff_ids"][0]
    manifest["config"] |= _put(cache, config)
    index = json.loads((cache / "index.json").read_text())
    index["manifests"][0] |= _put(cache, manifest)
    (cache / "index.json").write_text(json.dumps(index))
    _, log = build(tmp_path / "other", context, "--cache-from", f"type=local,src={cache}")
    assert any("damaged" in line for line in log)
    shown = run_pipe(
        tmp_path / "other", "run", "--rm", "--network", "none", "x", "cat", "/copied", "/b"
    ).stdout
    assert shown == b"ab"


def _put(layout: Path, record: dict[str, Any]) -> dict[str, Any]:
    raw = json.dumps(record).encode()
    digest = hashlib.sha256(raw).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(raw)
    return {"digest": f"sha256:{digest}", "size": len(raw)}


def test_an_export_that_fails_is_an_error_unless_it_may_be_ignored(
    fresh_root: Path, tmp_path: Path, context: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    target = f"type=local,dest={tmp_path}/file"
    failed = run_pipe(fresh_root, "build", "-t", "x", "--cache-to", target, str(context), code=None)
    assert failed.returncode != 0
    assert b"Traceback" not in failed.stderr
    _, log = build(fresh_root, context, "--cache-to", f"{target},ignore-error=true")
    assert any("no cache to" in line for line in log)


# --- registries ---------------------------------------------------------------------------------------------------


def check_registry(host: str, fresh_root: Path, tmp_path: Path, context: Path) -> None:
    reference = f"{host}/shop/cache:main"
    first, _ = build(fresh_root, context, "--cache-to", f"type=registry,ref={reference},mode=max")
    again, log = build(tmp_path / "other", context, "--cache-from", f"type=registry,ref={reference}")
    assert (again, cached(log)) == (first, STEPS)
    if shutil.which("skopeo"):
        raw = subprocess.run(
            ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference}"],
            check=True,
            capture_output=True,
        ).stdout
        assert json.loads(raw)["config"]["mediaType"] == "application/vnd.pipe.cache.config.v1+json"


def test_a_cache_in_dockers_registry(
    foreign: ForeignRegistry, fresh_root: Path, tmp_path: Path, context: Path
) -> None:
    check_registry(foreign.host, fresh_root, tmp_path, context)
    both = f"{foreign.host}/shop/cache:main"
    # As a pipeline does: from and to the same place. What is there is not sent, nor fetched to be sent.
    log_before = foreign.log.read_text()
    build(
        tmp_path / "third", context, "--cache-from", both, "--cache-to", f"type=registry,ref={both},mode=max"
    )
    said = foreign.log.read_text()[len(log_before) :]
    assert '"POST /v2/shop/cache/blobs/uploads/' not in said


def test_a_cache_in_the_embedded_registry(
    embedded: Served, fresh_root: Path, tmp_path: Path, context: Path
) -> None:
    check_registry(embedded.host, fresh_root, tmp_path, context)


def test_an_image_carries_its_own_cache(
    foreign: ForeignRegistry, fresh_root: Path, tmp_path: Path, context: Path
) -> None:
    reference = f"{foreign.host}/shop/app:1"
    first, _ = build(
        fresh_root, context, "-o", f"type=registry,name={reference}", "--cache-to", "type=inline"
    )
    again, log = build(tmp_path / "other", context, "--cache-from", reference, "--cache-to", "type=inline")
    assert (again, cached(log)) == (first, STEPS)
    plain, log = build(tmp_path / "third", context, "--cache-from", f"type=registry,ref={reference}")
    assert cached(log) == STEPS
    assert plain != first  # without the records it is another image
    subprocess.run(
        ["skopeo", "copy", "--src-tls-verify=false", f"docker://{reference}", f"oci:{tmp_path}/copy:1"],
        check=True,
        capture_output=True,
    )


# --- pipe.yaml ----------------------------------------------------------------------------------------------------


def test_images_of_a_pipeline_share_their_cache(fresh_root: Path, tmp_path: Path, context: Path) -> None:
    (context / ".dockerignore").write_text("*\n!*.txt\n!busybox\n")
    (context / "pipe.yaml").write_text(
        "name: shop\nimages:\n  app:\n    context: .\n"
        "    cache_from: ['type=local,src=../cache,tag=${git.branch:-main}']\n"
        "    cache_to: ['type=local,dest=../cache,mode=max,tag=${git.branch:-main}']\n"
    )
    run_pipe(fresh_root, "build", cwd=context)
    assert manifest_in(tmp_path / "cache", "main")["layers"]
    other = tmp_path / "other"
    done = run_pipe(other, "build", cwd=context)
    assert cached((done.stdout + done.stderr).decode().splitlines()) >= STEPS
