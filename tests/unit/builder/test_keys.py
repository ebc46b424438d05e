"""What makes a cache key and what does not (FEATURES B-3, B-4, B-6)."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from builder.content import Content, content_of
from builder.digests import NoMemory
from builder.graph import Copy, CopySource, Exec, RunMount
from builder.keys import Surroundings, cache_key, copy_shape, exec_shape
from builder.operations.selection import Tree, select

PLAIN = Surroundings(hostname="builder")
RUN = Exec(argv=("/bin/sh", "-c", "make"), env=(("A", "1"), ("B", "2")), cwd="/src")


def shape(operation: Exec, surroundings: Surroundings = PLAIN) -> str:
    return exec_shape(operation, surroundings).digest


@pytest.mark.parametrize(
    "changed",
    [
        replace(RUN, argv=("/bin/sh", "-c", "make all")),
        replace(RUN, env=(("A", "1"), ("B", "3"))),
        replace(RUN, env=(("A", "1"),)),
        replace(RUN, cwd="/"),
        replace(RUN, user="app"),
        replace(RUN, network="none"),
        replace(RUN, security="insecure"),
        replace(RUN, platform="linux/arm64"),
        replace(RUN, files=(("EOF", b"echo"),)),
        replace(RUN, mounts=(RunMount(type="tmpfs", target="/tmp"),)),
        replace(RUN, mounts=(RunMount(type="secret", target="/run/secrets/a", id="a"),)),
    ],
)
def test_what_a_command_sees_is_in_its_key(changed: Exec) -> None:
    assert shape(changed) != shape(RUN)


def test_the_order_of_variables_and_proxies_are_not_in_the_key() -> None:
    assert shape(replace(RUN, env=(("B", "2"), ("A", "1")))) == shape(RUN)
    assert shape(replace(RUN, env=(*RUN.env, ("HTTP_PROXY", "http://p"), ("no_proxy", "x")))) == shape(RUN)


def test_a_cache_mounts_id_is_not_in_the_key_but_its_target_is() -> None:
    cache = RunMount(type="cache", target="/root/.cache", id="pip")
    with_cache = replace(RUN, mounts=(cache,))
    assert shape(with_cache) == shape(replace(RUN, mounts=(replace(cache, id="other", sharing="locked"),)))
    assert shape(with_cache) != shape(replace(RUN, mounts=(replace(cache, target="/x"),)))
    assert shape(with_cache) == shape(replace(RUN, mounts=(replace(cache, mode=0o755),)))
    for other in (replace(cache, uid=5), replace(cache, gid=5), replace(cache, mode=0o700)):
        assert shape(with_cache) != shape(replace(RUN, mounts=(other,)))


def test_a_result_without_a_secret_is_none_for_a_step_that_requires_it() -> None:
    for kind in ("secret", "ssh"):
        mount = RunMount(type=kind, target="/run/x", id="x")
        needs = replace(mount, required=True)
        assert shape(replace(RUN, mounts=(mount,))) != shape(replace(RUN, mounts=(needs,)))


def test_extra_host_names_count_and_ulimits_count() -> None:
    assert shape(RUN, replace(PLAIN, host_names=("db",))) != shape(RUN)
    assert shape(RUN, replace(PLAIN, rlimits=("nofile=5:5",))) != shape(RUN)


def test_the_root_and_the_content_make_the_key_of_a_shape() -> None:
    one = exec_shape(RUN, PLAIN)
    assert cache_key(one, "sha256:a", Content("")) != cache_key(one, "sha256:b", Content(""))
    assert cache_key(one, "sha256:a", Content("x")) != cache_key(one, "sha256:a", Content("y"))


def test_where_a_copy_finds_its_files_is_not_in_its_shape() -> None:
    first = Copy(sources=(CopySource(input=1, paths=("a.txt",)),), dest="/x/")
    second = Copy(sources=(CopySource(input=1, paths=("./a.txt",)),), dest="/x/")
    assert copy_shape(first, PLAIN).digest == copy_shape(second, PLAIN).digest
    for changed in (replace(first, dest="/y/"), replace(first, owner="1"), replace(first, mode="0600")):
        assert copy_shape(changed, PLAIN).digest != copy_shape(first, PLAIN).digest


def content(tree: Path, *paths: str, keep_owner: bool = False) -> str:
    groups = select(Tree(str(tree)), paths or (".",))
    return content_of(groups, NoMemory(), keep_owner=keep_owner).digest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_text("one")
    (tmp_path / "link").symlink_to("d/a")
    return tmp_path


def test_times_are_not_in_the_content(tree: Path) -> None:
    before = content(tree)
    os.utime(tree / "d" / "a", (1, 1))
    os.utime(tree / "d", (1, 1))
    assert content(tree) == before


def test_data_modes_names_and_links_are_in_the_content(tree: Path) -> None:
    seen = {content(tree)}
    (tree / "d" / "a").write_text("two")
    seen.add(content(tree))
    (tree / "d" / "a").chmod(0o600)
    seen.add(content(tree))
    (tree / "d").chmod(0o700)
    seen.add(content(tree))
    (tree / "d" / "a").rename(tree / "d" / "b")
    seen.add(content(tree))
    (tree / "link").unlink()
    (tree / "link").symlink_to("elsewhere")
    seen.add(content(tree))
    (tree / "empty").mkdir()
    seen.add(content(tree))
    assert len(seen) == 7


def test_owners_count_only_where_they_are_kept(tree: Path) -> None:
    assert content(tree) == content(tree)
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    plain, kept = content(tree), content(tree, keep_owner=True)
    os.chown(tree / "d" / "a", 5, 6)
    assert content(tree) == plain
    assert content(tree, keep_owner=True) != kept


def test_a_file_by_another_name_is_other_content(tree: Path) -> None:
    (tree / "d" / "b").write_text("one")
    assert content(tree, "d/a") != content(tree, "d/b")
