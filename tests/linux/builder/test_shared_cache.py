"""`--cache-to` and `--cache-from`: caches between stores, judged by docker-registry, skopeo and GNU tar."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Earlier:
    """A build on another machine, and what it left in a directory: `cache` has the tags `min` and `max`."""

    image: str
    cache: Path

    def flags(self, tag: str = "max") -> list[str]:
        return ["--cache-from", f"type=local,src={self.cache},tag={tag}"]

    def copied(self, to: Path) -> Earlier:
        """One to damage."""
        return Earlier(self.image, shutil.copytree(self.cache, to))


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Earlier:
    directory = tmp_path_factory.mktemp("earlier")
    context, cache = make_context(directory / "context"), directory / "cache"
    to = [f"type=local,dest={cache},tag=min", f"type=local,dest={cache},tag=max,mode=max"]
    image, _ = build(directory / "store", context, "--cache-to", to[0], "--cache-to", to[1])
    shutil.rmtree(context)
    return Earlier(image, cache)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return make_context(tmp_path / "context")


def make_context(directory: Path) -> Path:
    ignored = "Dockerfile\n.dockerignore\n"
    return busybox_context(
        directory, {"a.txt": "a", "b.txt": "b", "Dockerfile": DOCKERFILE, ".dockerignore": ignored}
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


def shown(root: Path, *files: str) -> bytes:
    """What files of the image hold, as a container of it sees them."""
    return run_pipe(root, "run", "--rm", "--network", "none", "x", "cat", *files).stdout


def skopeo(*arguments: str) -> bytes:
    return subprocess.run(["skopeo", *arguments], check=True, capture_output=True, timeout=120).stdout


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
    earlier: Earlier, fresh_root: Path, context: Path
) -> None:
    again, log = build(fresh_root, context, *earlier.flags())
    assert again == earlier.image
    assert cached(log) == STEPS
    assert ran(log) == []
    assert shown(fresh_root, "/copied", "/b") == b"ab"
    # From now on it needs nobody, until files are wanted that were never fetched.
    again, log = build(fresh_root, context)
    assert (again, cached(log)) == (earlier.image, STEPS)
    _, log = build(fresh_root, context, "--target", "build")
    assert any("RUN mkdir /out" in line for line in ran(log))
    assert shown(fresh_root, "/out/a") == b"a"


def test_only_layers_that_are_needed_are_fetched(
    earlier: Earlier, fresh_root: Path, tmp_path: Path, context: Path
) -> None:
    mine = earlier.copied(tmp_path / "cache")
    sizes = {layer["digest"]: layer["size"] for layer in manifest_in(mine.cache, "max")["layers"]}
    (heavy,) = (each for each in sizes if 300_000 <= sizes[each] < 400_000)
    # The stage whose files only found steps took is not needed: its layer may even be gone.
    (mine.cache / "blobs" / heavy.replace(":", "/")).unlink()
    _, log = build(fresh_root, context, *mine.flags())
    assert cached(log) == STEPS


def test_a_change_rebuilds_only_from_there_and_why_names_the_file(
    earlier: Earlier, fresh_root: Path, context: Path
) -> None:
    (context / "b.txt").write_text("other")
    _, log = build(fresh_root, context, *earlier.flags())
    assert [line.partition("] ")[2] for line in ran(log)] == [
        "COPY b.txt /b",
        "COPY --from=build /out /out",
        "RUN --mount=type=bind,from=build,source=/src,target=/m cat /m/a.txt > /copied",
    ]
    assert shown(fresh_root, "/out/a", "/copied", "/b") == b"aaother"
    # This store knows the earlier build from the cache only.
    told = run_pipe(fresh_root, "why", "x", "COPY b.txt").stdout.decode()
    assert "file b.txt: mode 0644, owner 0:0, 1 bytes" in told
    assert "5 bytes" in told
    assert "never" not in told


def test_min_has_the_layers_of_the_result_only_and_is_still_found_whole(
    earlier: Earlier, fresh_root: Path, context: Path
) -> None:
    few, all_of_them = (manifest_in(earlier.cache, tag)["layers"] for tag in ("min", "max"))
    assert len(all_of_them) > len(few) == 5
    again, log = build(fresh_root, context, *earlier.flags("min"))
    assert (again, cached(log)) == (earlier.image, STEPS)


def test_a_stage_without_layers_is_built_when_a_later_step_wants_its_files(
    earlier: Earlier, fresh_root: Path, context: Path
) -> None:
    (context / "Dockerfile").write_text(DOCKERFILE.replace("/out /out", "/src /sources"))
    _, log = build(fresh_root, context, *earlier.flags("min"))
    assert any("RUN mkdir /out" in line for line in ran(log))
    assert shown(fresh_root, "/sources/a.txt") == b"a"


def test_an_import_can_be_exported_again_with_layers_that_were_never_fetched(
    earlier: Earlier, fresh_root: Path, tmp_path: Path, context: Path
) -> None:
    build(fresh_root, context, *earlier.flags(), "--cache-to", f"type=local,dest={tmp_path}/second,mode=max")
    assert manifest_in(earlier.cache, "max") == manifest_in(tmp_path / "second")
    for blob in (tmp_path / "second" / "blobs" / "sha256").iterdir():
        assert blob.read_bytes() == (earlier.cache / "blobs" / "sha256" / blob.name).read_bytes()


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
    assert str(tmp_path) not in json.dumps(config)  # nothing of the machine
    assert {record["kind"].partition(".")[0] for record in config["records"]} == {"exec", "copy", "directory"}
    for tag in ("main", "other"):
        skopeo("inspect", "--raw", f"oci:{cache}:{tag}")
    # The same again gives the same bytes, and may be all that stays.
    build(fresh_root, context, "--cache-to", f"type=local,dest={cache},mode=max,reset=true")
    assert manifest_in(cache) == manifest
    needed = {manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}
    assert len(list((cache / "blobs" / "sha256").iterdir())) == len(needed) + 1


def test_builds_at_once_share_what_is_fetched(earlier: Earlier, fresh_root: Path, context: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: build(fresh_root, context, *earlier.flags()), range(3)))
    assert {image for image, _ in found} == {earlier.image}
    assert {cached(log) for _, log in found} == {STEPS}


def test_platforms_share_one_cache(fresh_root: Path, tmp_path: Path, context: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM scratch\nARG TARGETARCH\nCOPY a.txt /$TARGETARCH\nCOPY b.txt /\n"
    )
    both = ["--platform", "linux/amd64,linux/arm64"]
    build(fresh_root, context, *both, "--cache-to", f"type=local,dest={tmp_path}/both")
    _, log = build(tmp_path / "other", context, *both, "--cache-from", f"type=local,src={tmp_path}/both")
    assert (cached(log), ran(log)) == (4, [])


# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_place_without_a_cache_is_a_warning_and_the_next_one_serves(
    earlier: Earlier, fresh_root: Path, tmp_path: Path, context: Path
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "index.json").write_text("{broken")
    sources = [f"type=local,src={tmp_path}/nowhere", f"type=local,src={tmp_path}/bad"]
    flags = [word for source in sources for word in ("--cache-from", source)]
    _, log = build(fresh_root, context, *flags, *earlier.flags())
    assert cached(log) == STEPS
    for name in ("nowhere", "bad"):
        assert any("no cache from" in line and name in line for line in log), log


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_lost_or_damaged_layer_is_a_warning_and_its_step_runs(
    earlier: Earlier, fresh_root: Path, tmp_path: Path, context: Path, how: str
) -> None:
    mine = earlier.copied(tmp_path / "cache")
    blob = mine.cache / "blobs" / manifest_in(mine.cache, "max")["layers"][1]["digest"].replace(":", "/")
    if how == "missing":
        blob.unlink()
    else:
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.write_bytes(data)
    _, log = build(fresh_root, context, *mine.flags())
    assert any("is left out" in line for line in log)
    assert any("--install" in line for line in ran(log))
    assert shown(fresh_root, "/copied", "/b") == b"ab"


def test_a_layer_that_is_not_what_the_cache_says_is_refused(
    earlier: Earlier, fresh_root: Path, tmp_path: Path, context: Path
) -> None:
    """Blobs are right, their meaning is not: two layers are exchanged in the config."""
    cache = earlier.copied(tmp_path / "cache").cache
    manifest = manifest_in(cache, "max")
    config = json.loads(blob_in(cache, manifest["config"]["digest"]))
    config["diff_ids"][0], config["diff_ids"][1] = config["diff_ids"][1], config["diff_ids"][0]
    manifest["config"] |= _put(cache, config)
    index = json.loads((cache / "index.json").read_text())
    index["manifests"] = [index["manifests"][-1] | _put(cache, manifest)]
    (cache / "index.json").write_text(json.dumps(index))
    _, log = build(fresh_root, context, "--cache-from", f"type=local,src={cache},tag=max")
    assert any("damaged" in line for line in log)
    assert shown(fresh_root, "/copied", "/b") == b"ab"


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
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{reference}")
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
    asked, _ = build(fresh_root, context, "--build-arg", "BUILDKIT_INLINE_CACHE=1")
    assert asked == first
    plain, log = build(tmp_path / "third", context, "--cache-from", f"type=registry,ref={reference}")
    assert cached(log) == STEPS
    assert plain != first  # without the records it is another image
    skopeo("copy", "--src-tls-verify=false", f"docker://{reference}", f"oci:{tmp_path}/copy:1")


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
