"""COPY, ADD and WORKDIR in real builds (FEATURES A-65…A-83)."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from tests.support.builder import (
    build_text,
    config_of,
    contents_of,
    layers_of,
    run_pipe,
    tree_of,
    write_files,
)

pytestmark = pytest.mark.linux


def members(root: Path, context: Path, dockerfile: str, *arguments: str) -> dict[str, tarfile.TarInfo]:
    return tree_of(root, context, "-f", "-", *arguments, stdin=dockerfile.encode())


def test_files_become_roots_whatever_the_user_and_keep_mode_and_time(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {"run.sh": "x"})
    (context / "run.sh").chmod(0o750)
    os.chown(context / "run.sh", 55, 66)
    os.utime(context / "run.sh", (1_000_000, 1_000_000))
    found = members(root, context, "FROM base:1\nUSER app\nCOPY run.sh /opt/\n")["opt/run.sh"]
    assert (found.uid, found.gid, found.mode, found.mtime) == (0, 0, 0o750, 1_000_000)


@pytest.mark.parametrize(
    ("owner", "expected"),
    [("5:6", (5, 6)), ("5", (5, 5)), ("app", (1000, 2000)), ("app:web", (1000, 3000)), ("7:web", (7, 3000))],
)
def test_chown_by_number_and_name(root: Path, tmp_path: Path, owner: str, expected: tuple[int, int]) -> None:
    context = write_files(tmp_path / "c", {"d/file": "x"})
    found = members(root, context, f"FROM base:1\nCOPY --chown={owner} d /new/dir\n")
    assert (found["new/dir/file"].uid, found["new/dir/file"].gid) == expected


def test_an_unknown_owner_fails_with_the_line(root: Path, tmp_path: Path) -> None:
    context = write_files(
        tmp_path / "c", {"file": "x", "Dockerfile": "FROM base:1\n\nCOPY --chown=nobody file /\n"}
    )
    done = run_pipe(root, "build", str(context), code=2)
    assert b"no user 'nobody'" in done.stderr
    assert b"Dockerfile:3:1" in done.stderr


def test_chmod_octal_and_symbolic(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {"d/file": "x", "d/sub/tool": "y"})
    (context / "d/sub/tool").chmod(0o755)
    octal = members(root, context, "FROM base:1\nCOPY --chmod=0640 d /o\n")
    assert (octal["o/file"].mode, octal["o/sub"].mode) == (0o640, 0o640)
    symbolic = members(root, context, "FROM base:1\nCOPY --chmod=u=rwX,go= d /s\n")
    assert (symbolic["s/file"].mode, symbolic["s/sub"].mode, symbolic["s/sub/tool"].mode) == (
        0o600,
        0o700,
        0o700,
    )


def test_the_destination_decides_what_a_file_is_called(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {"a": "1", "b": "2", "d/in": "3"})
    found = members(
        root,
        context,
        "FROM base:1\nWORKDIR /w\nCOPY a x\nCOPY a sub/\nCOPY a b both/\nCOPY a /tmp\nCOPY d /tree\nCOPY a* glob/\n",
    )
    expected = {"w/x", "w/sub/a", "w/both/a", "w/both/b", "tmp/a", "tree/in", "w/glob/a"}
    assert expected <= found.keys()
    assert "tree/d" not in found


def test_files_and_directories_do_not_replace_each_other(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {"file": "1", "etc": "2", "d/passwd/x": "3"})
    for dockerfile in (
        "FROM base:1\nCOPY etc /\n",
        "FROM base:1\nCOPY d /etc\n",
        "FROM base:1\nCOPY d /etc/passwd\n",
    ):
        done = run_pipe(root, "build", "-f", "-", str(context), stdin=dockerfile.encode(), code=2)
        assert b"cannot copy" in done.stderr


def test_links_in_the_destination_are_followed_inside_the_root(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {"file": "new"})
    dockerfile = """FROM base:1
RUN mkdir -p /real && ln -s /real /link && ln -s ../../../../real/deep /up && ln -s /real/target /file
COPY file /link/
COPY file /up/
COPY file /file
"""
    found = members(root, context, dockerfile)
    assert {"real/file", "real/deep/file", "real/target"} <= found.keys()
    assert found["link"].issym()
    assert found["file"].issym()
    assert not Path("/real").exists()


def test_missing_files_fail_and_wildcards_do_not(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {"file": "1"})
    missing = run_pipe(root, "build", "-f", "-", str(context), stdin=b"FROM base:1\nCOPY nothing /\n", code=2)
    assert b'"/nothing": not found' in missing.stderr
    build_text(root, context, "FROM base:1\nCOPY nothing* /x/\n")


def test_an_existing_directory_keeps_its_attributes_and_new_parents_are_roots(
    root: Path, tmp_path: Path
) -> None:
    context = write_files(tmp_path / "c", {"file": "1"})
    found = members(root, context, "FROM base:1\nCOPY --chown=5:5 file /tmp/\nCOPY file /a/b/c/\n")
    assert found["tmp"].mode == 0o1777
    assert (found["a/b"].uid, found["a/b"].mode) == (0, 0o755)


def test_a_stage_keeps_owners_and_a_link_copy_ignores_what_is_there(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {"file": "1"})
    dockerfile = """FROM base:1 AS made
RUN mkdir -p /out/sub && echo x > /out/sub/f && chown -R 7:8 /out && ln /out/sub/f /out/g
FROM base:1
RUN mkdir /there && ln -s /there /place
COPY --from=made /out /copied
COPY --link file /place/file
"""
    found = members(root, context, dockerfile)
    assert (found["copied/sub/f"].uid, found["copied/sub/f"].gid) == (7, 8)
    assert found["copied/sub/f"].islnk() or found["copied/g"].islnk()
    assert found["place"].isdir()
    assert found["place/file"].isfile()


def test_workdir_belongs_to_the_user_in_force(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {})
    found = members(root, context, "FROM base:1\nUSER app\nWORKDIR /home/app/src\n")
    assert (found["home/app/src"].uid, found["home/app/src"].gid, found["home/app/src"].mode) == (
        1000,
        2000,
        0o755,
    )


def test_a_workdir_that_is_there_makes_no_layer(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {})
    image = build_text(root, context, "FROM base:1\nWORKDIR /tmp\n")
    assert config_of(root, image)["history"][-1]["empty_layer"] is True


def test_heredocs_are_files_named_by_their_delimiter(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {})
    dockerfile = "FROM base:1\nARG who=me\nCOPY <<one <<'two' /x/\nhello $who\none\nraw $who\ntwo\n"
    found = contents_of(root, context, ["x/one", "x/two"], "-f", "-", stdin=dockerfile.encode())
    assert found == {"x/one": b"hello me\n", "x/two": b"raw $who\n"}


def make_tar(names: dict[str, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in names.items():
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.gid, member.mtime = len(data), 12, 13, 1000
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_add_unpacks_an_archive_by_its_content(root: Path, tmp_path: Path, mode: str) -> None:
    context = write_files(tmp_path / "c", {"odd.name": make_tar({"in/file": b"x"}, mode)})
    found = members(root, context, "FROM base:1\nADD odd.name /un/\nCOPY odd.name /as-is\n")
    assert (found["un/in/file"].uid, found["un/in/file"].mtime) == (12, 1000)
    assert found["as-is"].isfile()
    assert "un/odd.name" not in found


def test_a_directory_may_be_added_after_an_archive(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {"a.tar": make_tar({"in/file": b"x"}, "w"), "d/file": "y"})
    found = members(root, context, "FROM base:1\nADD a.tar d /deep/er/\n")
    assert {"deep/er/in/file", "deep/er/file"} <= found.keys()


def test_add_leaves_what_is_no_archive_and_what_it_is_told_to(root: Path, tmp_path: Path) -> None:
    import gzip

    files = {
        "note.tar.gz": "no archive",
        "text.gz": gzip.compress(b"hello"),
        "real.tar": make_tar({"f": b"x"}, "w"),
    }
    context = write_files(tmp_path / "c", files)
    found = members(
        root, context, "FROM base:1\nADD note.tar.gz text.gz /x/\nADD --unpack=false real.tar /x/\n"
    )
    assert {"x/note.tar.gz", "x/text.gz", "x/real.tar"} <= found.keys()


def evil_tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, link in (("way-out", "/"), ("up", "../../../../../..")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, link
            archive.addfile(member)
        for name in ("/absolute", "../../escape", "way-out/through-link", "up/through-up"):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
    return out.getvalue()


def test_an_archive_cannot_write_outside_the_root(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {"evil.tar": evil_tar()})
    found = members(root, context, "FROM base:1\nADD evil.tar /deep/er/\n")
    assert {"deep/er/absolute", "deep/er/escape", "through-link", "through-up"} <= found.keys()
    for name in ("absolute", "escape", "through-link", "through-up"):
        assert not Path("/", name).exists()
        assert not (tmp_path / name).exists()


def test_a_hard_link_to_the_outside_is_refused(root: Path, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("steal")
        member.type, member.linkname = tarfile.LNKTYPE, "/etc/passwd"
        archive.addfile(member)
    context = write_files(tmp_path / "c", {"evil.tar": out.getvalue()})
    done = run_pipe(root, "build", "-f", "-", str(context), stdin=b"FROM base:1\nADD evil.tar /x/\n", code=2)
    assert b"which is not in the archive" in done.stderr


def test_ignored_files_are_not_copied_and_the_dockerfiles_own_ignore_file_wins(
    root: Path, tmp_path: Path
) -> None:
    files = {
        ".dockerignore": "*.log\n",
        "a.log": "1",
        "b.txt": "2",
        "Dockerfile": "FROM base:1\nCOPY . /x/\n",
        "other.Dockerfile": "FROM base:1\nCOPY . /x/\n",
        "other.Dockerfile.dockerignore": "*.txt\nDockerfile\n",
    }
    context = write_files(tmp_path / "c", files)
    plain = tree_of(root, context)
    assert "x/b.txt" in plain
    assert "x/a.log" not in plain
    other = tree_of(root, context, "-f", str(context / "other.Dockerfile"))
    assert "x/a.log" in other
    assert "x/b.txt" not in other
    assert "x/Dockerfile" not in other


def test_a_copied_layer_holds_the_files_and_their_new_parents_only(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {"d/file": "1"})
    image = build_text(root, context, "FROM base:1\nCOPY d /etc/new\n")
    assert sorted(layers_of(root, image)[-1]) == ["etc", "etc/new", "etc/new/file"]


def test_details_of_buildkit(root: Path, tmp_path: Path) -> None:
    """Each was read from what BuildKit 0.25 makes of the same lines."""
    context = write_files(
        tmp_path / "c", {"a.txt": "a", "b.txt": "b", "d/f": "1", "t.tar": make_tar({"l/in": b"x"}, "w")}
    )
    (context / "d").chmod(0o750)
    os.utime(context / "d", (1_500_000_000, 1_500_000_000))
    dockerfile = """FROM base:1
RUN mkdir /old /target && chmod 700 /old && ln -s /target /l
COPY d /new
COPY d /old
COPY --chmod=710 --chown=3:4 a.txt /made/on/way/
COPY *.txt /one
ADD t.tar /
"""
    found = members(root, context, dockerfile)
    # The target of a directory has the time of the source, and neither its mode nor its owner.
    assert (found["new"].mode, found["new"].mtime) == (0o755, 1_500_000_000)
    assert (found["old"].mode, found["old"].mtime) == (0o700, 1_500_000_000)
    # --chmod and --chown count for the directories that are made.
    assert (found["made"].mode, found["made/on"].uid, found["made/on/way"].gid) == (0o710, 3, 4)
    # Several matches for one name overwrite each other.
    assert found["one"].isfile()
    # An archive's file goes where a link leads.
    assert "target/in" in found
