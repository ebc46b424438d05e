"""Base layers are fetched when somebody needs them, once, beside all else. docker-registry tells what was asked of it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.images.images import Images
from runtime.store import Store
from tests.support.builder import PROJECT, build, config_of, run_pipe, write_files
from tests.support.registry_images import SmallImage, layered_image
from tests.support.watched_registry import WatchedRegistry, watched_registry

pytestmark = pytest.mark.linux
PATIENCE = 120.0
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
BIG = random.Random(7).randbytes(400_000)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedRegistry]:
    with watched_registry(tmp_path_factory.mktemp("registry")) as registry:
        registry.put("base", "1", BASE)
        registry.put("other", "1", OTHER)
        yield registry


@pytest.fixture
def registry(running: WatchedRegistry) -> WatchedRegistry:
    running.asked.clear()
    return running


BASE = layered_image({"etc/name": b"base\n"}, {"big": BIG}, {"top": b"top\n"})
OTHER = layered_image({"etc/name": b"other\n"}, {"more": b"more\n"})


def context(directory: Path, dockerfile: str, registry: WatchedRegistry, **files: str) -> Path:
    """A context whose Dockerfile says BASE and OTHER for the two images."""
    text = dockerfile.replace("BASE", f"{registry.host}/base:1").replace("OTHER", f"{registry.host}/other:1")
    return write_files(directory, {"Dockerfile": text, ".dockerignore": "Dockerfile\n", **files})


def layers(image: SmallImage) -> list[str]:
    return [descriptor.digest for descriptor in image.manifest.layers]


def names(root: Path) -> list[str]:
    done = run_pipe(root, "images", "--format", "{{.Repository}}:{{.Tag}}")
    return done.stdout.decode().split()


def skopeo(*arguments: str) -> Any:
    done = subprocess.run(["skopeo", *arguments], check=True, capture_output=True, timeout=PATIENCE)
    return json.loads(done.stdout)


# --- when something is fetched ----------------------------------------------------------------------------------------


def test_a_step_that_runs_fetches_each_layer_once_and_the_base_is_an_image_then(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    place = context(tmp_path / "context", "FROM BASE\nRUN cat /top /etc/name > /seen\n", registry)
    build(fresh_root, place)
    assert registry.fetched_any(BASE) == layers(BASE)
    assert f"{registry.host}/base:1" in names(fresh_root)
    assert registry.manifests("base") == ["1"]


def test_a_cached_build_that_stores_nothing_fetches_no_layer(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    dockerfile = "FROM BASE\nRUN cat /top > /seen\nCOPY a.txt /\nCOPY --from=OTHER /more /\n"
    place, cache = context(tmp_path / "context", dockerfile, registry, **{"a.txt": "a"}), tmp_path / "cache"
    build(fresh_root, place, "--cache-to", f"type=local,dest={cache},mode=max")
    registry.asked.clear()
    there = tmp_path / "other"
    flags = ("--cache-from", f"type=local,src={cache}", "-o", "type=cacheonly")
    done = run_pipe(there, "build", *flags, str(place))
    assert b"RUN" in done.stderr and b"pull" not in done.stderr, done.stderr
    assert registry.fetched_any(BASE) == registry.fetched_any(OTHER) == []
    assert names(there) == []
    # Stored, the result needs its own base, and still not that of the other image.
    image = build(there, place, *flags[:2], "-t", "result:1")
    assert image == build(fresh_root, place)
    assert (registry.fetched_any(BASE), registry.fetched_any(OTHER)) == (layers(BASE), [])
    assert names(there) == ["result:1", f"{registry.host}/base:1"]
    run_pipe(there, "save", "-o", str(tmp_path / "saved.tar"), "result:1")


def test_a_tag_that_moved_is_followed_with_pull_and_only_what_is_new_is_fetched(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    files = {"etc/name": b"moving\n"}, {"old": b"old\n"}
    old, new = layered_image(*files), layered_image(*files, {"new": b"new\n"})
    registry.put("moving", "1", old)
    place = context(tmp_path / "context", f"FROM {registry.host}/moving:1\nRUN ls > /seen\n", registry)
    build(fresh_root, place)
    registry.put("moving", "1", new)
    registry.asked.clear()
    build(fresh_root, place)
    assert registry.asked == []
    build(fresh_root, place, "--pull")
    assert registry.fetched_any(new) == layers(new)[2:]
    registry.asked.clear()
    build(fresh_root, place, "--pull")
    assert registry.manifests("moving") == ["1"] and registry.fetched_any(new) == []
    done = run_pipe(
        fresh_root, "run", "--rm", "--network", "none", f"{registry.host}/moving:1", "cat", "/new"
    )
    assert done.stdout == b"new\n"


def test_the_base_of_a_stage_whose_steps_are_all_found_stays_away(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    dockerfile = "FROM BASE AS build\nRUN cat /top > /made\nFROM OTHER\nCOPY --from=build /made /\n"
    place, cache = context(tmp_path / "context", dockerfile, registry), tmp_path / "cache"
    image = build(fresh_root, place, "--cache-to", f"type=local,dest={cache},mode=max")
    registry.asked.clear()
    assert build(tmp_path / "other", place, "--cache-from", f"type=local,src={cache}") == image
    assert (registry.fetched_any(BASE), registry.fetched_any(OTHER)) == ([], layers(OTHER))


def test_the_image_of_a_stage_nobody_needs_is_not_even_resolved(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    dockerfile = "FROM BASE AS unused\nRUN false\nFROM OTHER\nRUN true\n"
    build(fresh_root, context(tmp_path / "context", dockerfile, registry))
    assert (registry.manifests("base"), registry.manifests("other")) == ([], ["1"])


def test_checks_and_outlines_ask_no_registry(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    place = context(tmp_path / "context", "FROM BASE\nRUN true\n", registry)
    for flags in (["--check"], ["--call=outline"], ["--call=targets"]):
        run_pipe(fresh_root, "build", *flags, str(place))
    assert registry.asked == []


def test_a_base_that_is_known_but_not_here_is_no_image_and_run_fetches_the_rest(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    place = context(tmp_path / "context", "FROM BASE\nENV A=1\n", registry)
    build(fresh_root, place, "-o", "type=cacheonly")
    assert names(fresh_root) == [] and registry.fetched_any(BASE) == []
    name = f"{registry.host}/base:1"
    done = run_pipe(fresh_root, "run", "--rm", "--network", "none", name, "cat", "/top")
    assert done.stdout == b"top\n"
    assert registry.fetched_any(BASE) == layers(BASE) and names(fresh_root) == [name]


def test_a_collection_takes_what_a_base_that_never_came_left(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    build(fresh_root, context(tmp_path / "context", "FROM BASE\nENV A=1\n", registry), "-o", "type=cacheonly")
    run_pipe(fresh_root, "system", "prune", "-f")
    assert os.listdir(fresh_root / "blobs/sha256") == []


# --- pushing without having -------------------------------------------------------------------------------------------

LINKED = "FROM BASE\nCOPY --link a.txt /a\nCOPY --link b.txt /deep/er/b\nENV A=1\n"


def test_a_linked_copy_is_pushed_onto_a_base_that_stays_where_it_is(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    place = context(tmp_path / "context", LINKED, registry, **{"a.txt": "a", "b.txt": "b"})
    name = f"{registry.host}/linked:1"
    image = build(fresh_root, place, "-t", name, "--push", env=EPOCH)
    assert registry.fetched_any(BASE) == []
    assert [registry.mounted(digest) for digest in layers(BASE)] == [1, 1, 1]
    assert registry.uploads() == 3  # two layers and the config
    assert names(fresh_root) == []
    manifest = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    assert manifest["config"]["digest"] == image
    assert [layer["digest"] for layer in manifest["layers"][:3]] == layers(BASE)
    # Built with its base the image is the same, and it is what it should be.
    assert build(tmp_path / "whole", place, env=EPOCH) == image
    done = run_pipe(
        tmp_path / "third", "run", "--rm", "--network", "none", name, "cat", "/a", "/deep/er/b", "/top"
    )
    assert done.stdout == b"abtop\n"


@pytest.mark.slow
def test_hundreds_of_linked_copies_made_before_their_base_came_are_put_on_it(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    late = layered_image({"etc/name": b"many\n"})
    registry.put("many", "1", late)
    registry.hold(layers(late)[0])
    copies = "".join(f"COPY --link a.txt /d/{n}\n" for n in range(600))
    place = context(
        tmp_path / "context", f"FROM {registry.host}/many:1\n{copies}", registry, **{"a.txt": "a"}
    )
    running = Running(fresh_root, "-t", "many:1", str(place))
    try:
        running.until_finished("/d/599")
        registry.let_go(layers(late)[0])
        assert running.end() == 0, running.lines
    finally:
        running.kill()
    done = run_pipe(
        fresh_root, "run", "--rm", "--network", "none", "many:1", "cat", "/d/0", "/d/599", "/etc/name"
    )
    assert done.stdout == b"aamany\n"


def test_a_name_that_was_pushed_only_no_longer_means_the_earlier_image_here(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    name = f"{registry.host}/moved:1"
    build(fresh_root, context(tmp_path / "old", "FROM scratch\nENV OLD=1\n", registry), "-t", name)
    assert names(fresh_root) == [name]
    build(fresh_root, context(tmp_path / "new", "FROM BASE\nENV NEW=1\n", registry), "-t", name, "--push")
    assert name not in names(fresh_root)
    done = run_pipe(fresh_root, "run", "--rm", "--network", "none", name, "sh", "-c", "echo $NEW")
    assert done.stdout == b"1\n"


def test_a_push_with_load_has_the_image_here_as_well(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    place = context(tmp_path / "context", LINKED, registry, **{"a.txt": "a", "b.txt": "b"})
    name = f"{registry.host}/loaded:1"
    build(fresh_root, place, "-t", name, "--push", "--load")
    assert name in names(fresh_root) and registry.fetched_any(BASE) == layers(BASE)


def test_what_another_registry_lacks_is_fetched_for_it(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    place = context(tmp_path / "context", LINKED, registry, **{"a.txt": "a", "b.txt": "b"})
    with watched_registry(tmp_path / "elsewhere") as elsewhere:
        name = f"{elsewhere.host}/linked:1"
        build(fresh_root, place, "-t", name, "--push")
        assert sorted(registry.fetched_any(BASE)) == sorted(layers(BASE))
        manifest = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")
        assert [layer["digest"] for layer in manifest["layers"][:3]] == layers(BASE)


def test_compressed_anew_a_base_has_to_be_fetched(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    place = context(tmp_path / "context", "FROM BASE\nENV A=1\n", registry)
    name = f"{registry.host}/zstd:1"
    build(fresh_root, place, "-o", f"type=registry,name={name},compression=zstd,force-compression=true")
    assert sorted(registry.fetched_any(BASE)) == sorted(layers(BASE))
    manifest = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    assert all(layer["mediaType"].endswith("zstd") for layer in manifest["layers"])


def test_platforms_are_pushed_without_their_bases_and_the_index_is_asked_for_once(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    each = {
        f"linux/{arch}": layered_image({"arch": arch.encode()}, architecture=arch, busybox=False)
        for arch in ("amd64", "arm64")
    }
    registry.put_index("both", "1", each)
    dockerfile = f"FROM {registry.host}/both:1\nCOPY --link a.txt /a\n"
    place = context(tmp_path / "context", dockerfile, registry, **{"a.txt": "a"})
    name = f"{registry.host}/both/made:1"
    build(fresh_root, place, "--platform", "linux/amd64,linux/arm64", "-t", name, "--push")
    assert registry.manifests("both").count("1") == 1
    for image in each.values():
        assert registry.fetched_any(image) == []
        assert registry.mounted(layers(image)[0]) == 1
    index = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]


def test_layers_found_in_a_cache_are_pushed_onto_a_base_that_is_not_here(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    dockerfile = "FROM BASE\nRUN cat /top > /seen\nCOPY --link a.txt /a\n"
    place, cache = context(tmp_path / "context", dockerfile, registry, **{"a.txt": "a"}), tmp_path / "cache"
    image = build(fresh_root, place, "--cache-to", f"type=local,dest={cache},mode=max")
    registry.asked.clear()
    there, name = tmp_path / "other", f"{registry.host}/cached:1"
    flags = ("--cache-from", f"type=local,src={cache}", "-t", name, "--push")
    assert build(there, place, *flags) == image
    assert registry.fetched_any(BASE) == [] and names(there) == []
    done = run_pipe(tmp_path / "third", "run", "--rm", "--network", "none", name, "cat", "/seen", "/a")
    assert done.stdout == b"top\na"


def test_what_is_said_of_an_image_and_its_cache_go_along_without_its_base(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    place = context(tmp_path / "context", LINKED, registry, **{"a.txt": "a", "b.txt": "b"})
    name, metadata = f"{registry.host}/said:1", tmp_path / "metadata.json"
    flags = ("--provenance=mode=max", "--metadata-file", str(metadata), "--cache-to", "type=inline")
    image = build(fresh_root, place, "-t", name, "--push", *flags)
    assert registry.fetched_any(BASE) == []
    index = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    assert [entry["platform"]["os"] for entry in index["manifests"]] == ["linux", "unknown"]
    said = json.loads(metadata.read_text())
    assert said["containerimage.config.digest"] == image
    assert said["containerimage.digest"] == said["containerimage.descriptor"]["digest"]
    # The cache in it serves a build elsewhere, which has no need of the base either.
    there = tmp_path / "other"
    log = run_pipe(there, "build", "--cache-from", name, "-o", "type=cacheonly", str(place)).stderr
    assert log.count(b"CACHED") >= 2 and registry.fetched_any(BASE) == []
    # A look into its files needs them.
    build(fresh_root, place, "-t", name, "--push", "--sbom=true")
    assert registry.fetched_any(BASE) == layers(BASE)


# --- beside other work ------------------------------------------------------------------------------------------------


class Running:
    """A build whose events are read as they come."""

    def __init__(self, root: Path, *arguments: str) -> None:
        command = [
            sys.executable,
            "-m",
            "pipeline.cli.main",
            "--root",
            str(root),
            "--progress",
            "jsonl",
            "build",
        ]
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PYTHONPATH": str(PROJECT), **kept},
            text=True,
        )
        self.lines: list[str] = []
        self._names: dict[str, str] = {}

    def until_finished(self, word: str) -> None:
        """Read on until a node whose name has `word` is done."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if not line.startswith("{"):
                continue
            event = json.loads(line)
            if event.get("event") == "started":
                self._names[event["node"]] = event["name"]
            if event.get("event") == "finished" and word in self._names.get(event["node"], ""):
                assert event["outcome"] == "done", line
                return
        raise AssertionError(f"{word} never ended: {self.lines}")

    def end(self) -> int:
        rest, _ = self.process.communicate(timeout=PATIENCE)
        self.lines.append(rest)
        return self.process.returncode

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll what only the file system tells."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError("it never came")


@pytest.mark.parametrize("waiting", [1, 8])
def test_steps_that_do_not_need_a_slow_base_do_not_wait_for_it(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry, waiting: int
) -> None:
    slow = layered_image(
        {"etc/name": b"slow\n"}, {f"slow-{waiting}": random.Random(waiting).randbytes(90_000)}
    )
    registry.put("slow", str(waiting), slow)
    held = layers(slow)[1]
    registry.hold(held, after=40_000)
    stages = "".join(
        f"FROM {registry.host}/slow:{waiting} AS s{n}\nRUN echo {n} > /{n}\n" for n in range(waiting)
    )
    copies = "".join(f"COPY --from=s{n} /{n} /\n" for n in range(waiting))
    dockerfile = f"{stages}FROM OTHER AS quick\nRUN echo quick > /quick\nFROM quick\n{copies}"
    running = Running(fresh_root, str(context(tmp_path / "context", dockerfile, registry)))
    try:
        running.until_finished("echo quick")  # comes to its end only if nothing waits for the layer
        registry.let_go(held)
        assert running.end() == 0, running.lines
    finally:
        running.kill()
    assert registry.fetched_any(slow) == layers(slow)


def test_a_copy_reads_its_files_while_its_root_is_on_its_way(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    held = layers(BASE)[0]
    registry.hold(held)
    try:
        place = context(tmp_path / "context", "FROM BASE\nCOPY missing.txt /\n", registry)
        done = run_pipe(fresh_root, "build", str(place), code=2)  # the layer is still held back
        assert b"missing.txt" in done.stderr
    finally:
        registry.let_go(held)
        del registry.held[held]


def test_the_base_of_the_result_comes_while_earlier_stages_work(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    late = layered_image({"etc/name": b"late\n"})
    registry.put("late", "1", late)
    asked_for = registry.hold(layers(late)[0])
    slow = layered_image({"etc/name": b"first\n"})
    registry.put("first", "1", slow)
    registry.hold(layers(slow)[0])
    dockerfile = f"FROM {registry.host}/first:1 AS first\nRUN echo 1 > /1\nFROM {registry.host}/late:1\nCOPY --from=first /1 /\n"
    running = Running(fresh_root, str(context(tmp_path / "context", dockerfile, registry)))
    try:
        assert asked_for.wait(PATIENCE), "nobody asked for the later base while the first stage had not begun"
        registry.let_go(layers(slow)[0])
        registry.let_go(layers(late)[0])
        assert running.end() == 0, running.lines
    finally:
        running.kill()


def test_two_builds_at_once_share_what_they_fetch(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    held = layers(BASE)[1]
    waits = registry.hold(held, after=100_000)
    places = [context(tmp_path / str(n), f"FROM BASE\nRUN echo {n} > /{n}\n", registry) for n in range(2)]
    running = [Running(fresh_root, str(place)) for place in places]
    try:
        assert waits.wait(PATIENCE)
        registry.let_go(held)
        assert [each.end() for each in running] == [0, 0], [each.lines for each in running]
    finally:
        for each in running:
            each.kill()
        del registry.held[held]
    assert registry.fetched_any(BASE) == layers(BASE)


def test_a_collection_leaves_alone_what_a_build_is_fetching(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    held = layers(BASE)[2]
    waits = registry.hold(held)
    running = Running(
        fresh_root, str(context(tmp_path / "context", "FROM BASE\nRUN cat /big /top\n", registry))
    )
    try:
        assert waits.wait(PATIENCE)
        run_pipe(fresh_root, "system", "prune", "-f")
        registry.let_go(held)
        assert running.end() == 0, running.lines
    finally:
        running.kill()
        registry.let_go(held)
        del registry.held[held]
    assert registry.fetched_any(BASE) == layers(BASE)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_connection_cut_in_a_layer_is_taken_up_where_it_broke(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    registry.cuts[layers(BASE)[1]] = [150_000, 100_000]
    place = context(tmp_path / "context", "FROM BASE\nRUN cat /big > /copy\n", registry)
    build(fresh_root, place)
    ranges = [each.range for each in registry.asked if each.path.endswith(layers(BASE)[1])]
    assert ranges == ["", "bytes=150000-", "bytes=250000-"]


def test_killed_in_the_middle_of_a_layer_nothing_is_taken_for_whole_and_the_next_build_goes_on(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    held = layers(BASE)[1]
    waits = registry.hold(held, after=200_000)
    place = context(tmp_path / "context", "FROM BASE\nRUN cat /top > /seen\n", registry)
    running = Running(fresh_root, str(place))
    try:
        assert waits.wait(PATIENCE)
        partial = fresh_root / "ingest" / hashlib.sha256(held.encode()).hexdigest()
        wait_until(lambda: partial.exists() and partial.stat().st_size > 0)
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(PATIENCE)
    finally:
        running.kill()
        registry.let_go(held)
        del registry.held[held]
    assert names(fresh_root) == []
    with Store.open(str(fresh_root)) as store:
        assert Images(store).find(f"{registry.host}/base:1") is None
    build(fresh_root, place, "-t", "result:1")
    assert "result:1" in names(fresh_root)
    asked = [each.range for each in registry.asked if each.path.endswith(held)]
    assert len(asked) == 2 and asked[1].startswith("bytes="), asked
    assert os.listdir(fresh_root / "drafts") == []


def test_a_layer_that_fails_does_not_wait_for_one_that_hangs(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    first, held = layers(BASE)[0], layers(BASE)[1]
    registry.refused[first] = 404
    registry.hold(held)
    try:
        place = context(tmp_path / "context", "FROM BASE\nRUN true\n", registry)
        assert b"layer 1 of 3" in run_pipe(fresh_root, "build", str(place), code=2).stderr
        name = f"{registry.host}/base:1"
        assert b"layer 1 of 3" in run_pipe(fresh_root, "pull", name, code=2).stderr
    finally:
        registry.refused.clear()
        registry.let_go(held)
        del registry.held[held]


def test_a_build_that_is_interrupted_does_not_wait_for_the_registry(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    held = layers(BASE)[1]
    waits = registry.hold(held, after=100_000)
    running = Running(fresh_root, str(context(tmp_path / "context", "FROM BASE\nRUN true\n", registry)))
    try:
        assert waits.wait(PATIENCE)
        running.process.send_signal(signal.SIGINT)
        assert running.end() == 130, running.lines  # the layer is still held back
    finally:
        running.kill()
        registry.let_go(held)
        del registry.held[held]
    assert names(fresh_root) == [] and os.listdir(fresh_root / "drafts") == []


def test_a_step_that_fails_breaks_off_what_is_fetched(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    held = layers(BASE)[1]
    registry.hold(held, after=100_000)
    dockerfile = "FROM OTHER AS bad\nRUN false\nFROM BASE\nCOPY --from=bad /etc/name /n\n"
    running = Running(fresh_root, str(context(tmp_path / "context", dockerfile, registry)))
    try:
        assert running.end() == 1, running.lines
    finally:
        running.kill()
        registry.let_go(held)
        del registry.held[held]
    assert any('"failed"' in line for line in running.lines)


def test_a_layer_that_is_gone_when_it_is_needed_is_named(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    digest = layers(BASE)[1]
    registry.refused[digest] = 404
    try:
        place = context(tmp_path / "context", "FROM BASE\nRUN true\n", registry)
        done = run_pipe(fresh_root, "build", str(place), code=2)
    finally:
        registry.refused.clear()
    said = done.stderr.decode()
    assert f"layer 2 of 3 of {registry.host}/base:1 ({digest})" in said and "--pull" in said
    assert names(fresh_root) == []
    build(fresh_root, place)


def test_a_base_that_cannot_be_had_ends_the_build_without_waiting_for_the_steps(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    gone = layered_image({"etc/name": b"gone\n"})
    registry.put("gone", "1", gone)
    registry.refused[layers(gone)[0]] = 404
    # The only step before it would never end by itself.
    dockerfile = f"FROM OTHER AS long\nRUN while true; do read x < /dev/zero; done\nFROM {registry.host}/gone:1\nCOPY --from=long /more /\n"
    try:
        done = run_pipe(fresh_root, "build", str(context(tmp_path / "context", dockerfile, registry)), code=2)
    finally:
        registry.refused.clear()
    assert f"layer 1 of 1 of {registry.host}/gone:1" in done.stderr.decode()


def test_a_layer_that_is_not_what_its_config_says_is_refused_and_serves_nobody(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    from registry_client.oci.manifest import make_manifest

    honest, liar = layered_image({"etc/name": b"honest\n"}), layered_image({"etc/name": b"a lie\n"})
    (layer, blob), config = liar.blobs[0], honest.blobs[1]
    registry.put("liar", "1", SmallImage(make_manifest(config[0], (layer,)), ((layer, blob), config)))
    registry.put("honest", "1", honest)
    dockerfile = f"FROM {registry.host}/liar:1\nRUN cat /etc/name\n"
    place = context(tmp_path / "liar", dockerfile, registry)
    done = run_pipe(fresh_root, "build", str(place), code=2)
    assert f"layer {layer.digest} unpacks to".encode() in done.stderr
    # Nor is it taken for the layer once that is here.
    text = f"FROM {registry.host}/honest:1\nRUN cat /etc/name > /seen\n"
    build(fresh_root, context(tmp_path / "honest", text, registry))
    done = run_pipe(fresh_root, "build", "--no-cache", str(place), code=2)
    assert f"layer {layer.digest} unpacks to".encode() in done.stderr
    assert f"{registry.host}/liar:1" not in names(fresh_root)
    with Store.open(str(fresh_root)) as store:
        diff_id = Images(store).get(f"{registry.host}/honest:1").diff_ids[0]
        assert layer.digest not in {form.digest for form in Images(store).records.layer_forms(diff_id)}


def test_onbuild_of_a_base_that_is_not_here_is_heeded(
    fresh_root: Path, tmp_path: Path, registry: WatchedRegistry
) -> None:
    registry.put("trigger", "1", layered_image({"etc/name": b"x\n"}, onbuild=("ENV SET=1",)))
    place = context(tmp_path / "context", f"FROM {registry.host}/trigger:1\n", registry)
    image = build(fresh_root, place)
    assert "SET=1" in config_of(fresh_root, image)["config"]["Env"]
