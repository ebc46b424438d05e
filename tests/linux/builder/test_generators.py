"""`--sbom generator=IMAGE`: scanners of others by BuildKit's protocol, played by busybox (B-16)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import run_pipe, write_files

pytestmark = pytest.mark.linux

SCANNER = r"""#!/bin/sh -e
# Says what it was given, in the form of a statement.
say() {
    printf '{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document",'
    printf '"predicate": {"spdxVersion": "SPDX-2.3", "name": "%s", "comment": "%s"}}' "$1" "$2"
}
list=$(cd "$BUILDKIT_SCAN_SOURCE" && find . -type f | sort | tr '\n' ' ')
say "$(basename $BUILDKIT_SCAN_SOURCE)" "$list" > "$BUILDKIT_SCAN_DESTINATION/one.spdx.json"
for each in ${BUILDKIT_SCAN_SOURCE_EXTRAS:+"$BUILDKIT_SCAN_SOURCE_EXTRAS"/*}; do
    say "$each" "$(cd "$each" && find . -type f -not -path './bin/*' | sort | tr '\n' ' ')" > "$BUILDKIT_SCAN_DESTINATION/$(basename "$each").spdx.json"
done
say extra "$MODE $1 $(pwd) $(id -u) $(touch $BUILDKIT_SCAN_SOURCE/x 2>/dev/null || echo read-only)" > "$BUILDKIT_SCAN_DESTINATION/two.spdx.json"
echo '{}' > "$BUILDKIT_SCAN_DESTINATION/not-one.json"
echo "looked at $BUILDKIT_SCAN_SOURCE"
"""
DOCKERFILE = """FROM base:1
COPY --chmod=755 scan /scan
ENV MODE=quick
USER app
WORKDIR "/my work"
ENTRYPOINT ["/scan"]
CMD ["with argument"]
"""


@pytest.fixture(scope="module")
def generator(base_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    context = write_files(tmp_path_factory.mktemp("scanner"), {"Dockerfile": DOCKERFILE, "scan": SCANNER})
    run_pipe(base_store, "build", "-q", "-t", "scanner:1", str(context))
    return "scanner:1"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write_files(
        tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY a /sub/a\n", "a": tmp_path.name}
    )


def predicates(layout: Path) -> list[dict[str, Any]]:
    """Of all statements of the first attestation manifest in an OCI layout."""

    def blob(digest: str) -> Any:
        return json.loads((layout / "blobs" / digest.replace(":", "/")).read_bytes())

    index = blob(json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"])
    entry = next(each for each in index["manifests"] if each["platform"]["os"] == "unknown")
    statements = [blob(layer["digest"]) for layer in blob(entry["digest"])["layers"]]
    subjects = {json.dumps(each["subject"][0]["digest"]) for each in statements}
    image = next(each for each in index["manifests"] if each["platform"]["os"] != "unknown")
    assert subjects == {json.dumps({"sha256": image["digest"].partition(":")[2]})}
    assert {each["predicateType"] for each in statements} == {"https://spdx.dev/Document"}
    return [each["predicate"] for each in statements]


def built(root: Path, context: Path, place: Path, *arguments: str, code: int = 0) -> str:
    output = f"type=oci,dest={place},tar=false"
    done = run_pipe(root, "build", "-o", output, *arguments, str(context), code=code)
    return (done.stdout + done.stderr).decode()


def test_a_generator_sees_the_root_and_what_it_leaves_is_attached(
    root: Path, context: Path, generator: str, tmp_path: Path
) -> None:
    log = built(root, context, tmp_path / "out", "--sbom", f"generator={generator}")
    assert "looked at /run/src/core/sbom" in log
    one, two = predicates(tmp_path / "out")
    assert (one["name"], one["comment"]) == ("sbom", "./sub/a ")
    assert two["comment"] == "quick with argument /my work 0 read-only"


def test_beside_files_statements_keep_the_names_they_were_given(
    root: Path, context: Path, generator: str, tmp_path: Path
) -> None:
    run_pipe(root, "build", "-o", str(tmp_path / "out"), "--sbom", f"generator={generator}", str(context))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "one.spdx.json",
        "sub",
        "two.spdx.json",
    ]


def test_the_same_root_is_scanned_once_and_leaves_no_image(
    root: Path, context: Path, generator: str, tmp_path: Path
) -> None:
    attest = ("--attest", f"type=sbom,generator={generator}")
    first = built(root, context, tmp_path / "one", *attest)
    images = run_pipe(root, "images", "-aq").stdout
    second = built(root, context, tmp_path / "two", *attest)
    assert first.count("looked at") == 1
    assert "looked at" not in second
    assert predicates(tmp_path / "one") == predicates(tmp_path / "two")
    assert run_pipe(root, "images", "-aq").stdout == images
    assert "looked at" in built(root, context, tmp_path / "three", *attest, "--no-cache")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("true", "left no *.spdx.json in /run/out"),
        ("echo nonsense > /run/out/a.spdx.json", "left no JSON in /run/out/a.spdx.json"),
        ("echo '{}' > /run/out/a.spdx.json", "left no in-toto statement"),
        ("ln -s /etc /run/out/a.spdx.json", "left no file at /run/out/a.spdx.json"),
        ("exit 3", "exit code 3"),
    ],
)
def test_a_generator_that_does_not_keep_to_the_protocol_fails_the_build(
    root: Path, context: Path, tmp_path: Path, script: str, said: str
) -> None:
    dockerfile = f"FROM base:1\nCMD {json.dumps(['sh', '-c', script])}\n"
    run_pipe(root, "build", "-q", "-t", "bad:1", "-", stdin=dockerfile.encode())
    log = built(root, context, tmp_path / "out", "--sbom", "generator=bad:1", code=1)
    assert said in log
    assert not (tmp_path / "out").exists()


def test_a_generator_that_cannot_be_run_is_told(root: Path, context: Path, tmp_path: Path) -> None:
    run_pipe(root, "build", "-q", "-t", "mute:1", "-", stdin=b"FROM scratch\nLABEL a=b\n")
    assert "has no command" in built(root, context, tmp_path / "out", "--sbom", "generator=mute:1", code=2)
    assert "--sbom generator: " in built(
        root, context, tmp_path / "out", "--sbom", "generator=UPPER CASE", code=2
    )


STAGES = """ARG BUILDKIT_SBOM_SCAN_STAGE=tools
FROM scratch AS tools
COPY tool /tool
FROM scratch AS unused
ARG BUILDKIT_SBOM_SCAN_STAGE=true
COPY a /unused
FROM scratch
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true
COPY --from=tools /tool /tool
COPY sub/a /a
"""


@pytest.fixture
def stages(tmp_path: Path) -> Path:
    files = {"Dockerfile": STAGES, "tool": tmp_path.name, "sub/a": "1", "sub/b": "2", "unasked": "3"}
    return write_files(tmp_path / "stages", files)


def test_a_generator_sees_stages_and_the_context_where_the_dockerfile_asks(
    root: Path, stages: Path, generator: str, tmp_path: Path
) -> None:
    images = run_pipe(root, "images", "-aq").stdout.split()
    built(root, stages, tmp_path / "out", "--sbom", f"generator={generator}")
    found = {each["name"]: each["comment"] for each in predicates(tmp_path / "out")}
    assert found["sbom"] == "./a ./tool "
    assert found["/run/src/extras/sbom-tools"] == "./tool "
    assert found["/run/src/extras/sbom-context"] == "./sub/a ./tool "
    assert len(found) == 4
    # Only the result itself is an image more than before.
    assert len(run_pipe(root, "images", "-aq").stdout.split()) == len(images) + 1


def test_our_own_scanner_writes_a_document_for_each_of_them(root: Path, stages: Path, tmp_path: Path) -> None:
    lock = {"lockfileVersion": 3, "packages": {"node_modules/left-pad": {"version": "1.3.0"}}}
    (stages / "tool").unlink()
    write_files(stages, {"tool/package-lock.json": json.dumps(lock)})
    run_pipe(root, "build", "-o", str(tmp_path / "out"), "--sbom=true", str(stages))
    found = {
        path.name: {package["name"] for package in json.loads(path.read_text())["predicate"]["packages"]}
        for path in (tmp_path / "out").glob("*.spdx.json")
    }
    assert sorted(found) == ["sbom-context.spdx.json", "sbom-tools.spdx.json", "sbom.spdx.json"]
    assert all("left-pad" in names for names in found.values())


def test_what_is_looked_at_is_not_taken_for_an_image_of_the_users(
    root: Path, stages: Path, generator: str, tmp_path: Path
) -> None:
    run_pipe(root, "build", "--target", "tools", "-t", "tools:1", str(stages))
    built(root, stages, tmp_path / "out", "--sbom", f"generator={generator}")
    assert run_pipe(root, "images", "-q", "tools:1").stdout


def test_several_platforms_are_looked_at_one_by_one(
    root: Path, stages: Path, generator: str, tmp_path: Path
) -> None:
    platforms = ("--platform", "linux/amd64,linux/arm64")
    run_pipe(
        root,
        "build",
        "-o",
        str(tmp_path / "out"),
        *platforms,
        "--sbom",
        f"generator={generator}",
        str(stages),
    )
    for name in ("linux_amd64", "linux_arm64"):
        assert (tmp_path / "out" / name / "sbom-tools.spdx.json").is_file()


def test_an_empty_host_name_is_none(root: Path) -> None:
    """It once was the name of the machine that builds."""
    dockerfile = b"FROM base:1\nRUN test $(hostname) = buildkitsandbox\n"
    run_pipe(root, "build", "--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=", "-", stdin=dockerfile)
