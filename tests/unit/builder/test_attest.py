"""Package URLs, statements, licences and SPDX documents: pure, and the same every time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builder.attest.purl import image_purl, purl
from builder.attest.statement import Attestation, image_subjects, statement
from builder.lower.remotes import without_credentials
from builder.sbom.licenses import spdx_expression
from builder.sbom.package import Distribution, Package
from builder.sbom.scan import Inventory
from builder.sbom.spdx import spdx_document
from registry_client.oci.digest import digest_of
from registry_client.oci.platform import Platform
from tests.support.spdx import check_spdx

ID = digest_of(b"an image")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (purl("deb", "curl", "7.50.3-1", namespace="debian", qualifiers={"arch": "i386", "distro": "jessie"}),
         "pkg:deb/debian/curl@7.50.3-1?arch=i386&distro=jessie"),
        (purl("deb", "a+b", "1:2.0+x~1", namespace="debian"), "pkg:deb/debian/a%2Bb@1:2.0%2Bx~1"),
        (purl("npm", "animation", "12.3.1", namespace="@angular"), "pkg:npm/%40angular/animation@12.3.1"),
        (purl("rpm", "curl", "7", qualifiers={"epoch": ""}), "pkg:rpm/curl@7"),
        (image_purl("alpine:3.17", Platform()), "pkg:docker/alpine@3.17?platform=linux%2Famd64"),
        (image_purl("docker.io/moby/buildkit", "linux/arm64"), "pkg:docker/moby/buildkit@latest?platform=linux%2Farm64"),
        (image_purl("127.0.0.1:5000/a/b:1", Platform()), "pkg:docker/127.0.0.1:5000/a/b@1?platform=linux%2Famd64"),
        (image_purl("oci-layout:///home/me/base", Platform()), "pkg:oci/base?platform=linux%2Famd64"),
    ],
)  # fmt: skip
def test_a_package_url_is_encoded_as_the_specification_says(made: str, expected: str) -> None:
    assert made == expected


def test_an_url_is_published_without_who_may_read_it() -> None:
    assert without_credentials("https://me:token@example.org/a.git") == "https://example.org/a.git"
    assert without_credentials("git@example.org:a/b.git") == "git@example.org:a/b.git"


def test_a_statement_names_each_subject_with_its_digest() -> None:
    subjects = image_subjects(["ex.org/a:1", "ex.org/a:2"], Platform(), ID)
    record = json.loads(statement(Attestation("urn:type", {"x": 1}), subjects))
    assert [each["name"] for each in record["subject"]] == [
        "pkg:docker/ex.org/a@1?platform=linux%2Famd64",
        "pkg:docker/ex.org/a@2?platform=linux%2Famd64",
    ]
    assert all(each["digest"] == {"sha256": ID.partition(":")[2]} for each in record["subject"])
    assert (record["predicateType"], record["predicate"]) == ("urn:type", {"x": 1})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MIT", "MIT"),
        ("GPL-2.0-only AND (MIT OR Apache-2.0)", "GPL-2.0-only AND (MIT OR Apache-2.0)"),
        ("GPL-2.0-or-later WITH Classpath-exception-2.0", "GPL-2.0-or-later WITH Classpath-exception-2.0"),
        ("MIT BSD-3-Clause", ""),
        ("GPLv2+", ""),
        ("MIT AND", ""),
        ("(MIT", ""),
        ("MIT)", ""),
        ("MIT WITH luck", ""),
        ("", ""),
        ("(" * 100_000, ""),
    ],
)
def test_only_licences_that_are_known_become_an_expression(text: str, expected: str) -> None:
    assert spdx_expression(text) == expected


def _document() -> Any:
    packages = (
        Package("apk", "musl", "1.2.3-r4", "alpine", license="MIT", place="lib/apk/db/installed"),
        Package("apk", "odd_name!", "1", "alpine", license="see COPYING", supplier="A\n  <a@b>", place="x"),
        Package("npm", "core", "2.0.0", "@scope", place="node_modules/@scope/core/package.json"),
    )
    inventory = Inventory(Distribution("alpine", "3.18", "Alpine Linux"), packages, ("a note",))
    return spdx_document(inventory, "shop/app:1", ID, "2024-05-06T07:08:09.123Z", "pipe-1")


def test_a_bill_of_material_has_every_field_spdx_requires() -> None:
    check_spdx(_document().predicate)
    document = _document().predicate
    assert document["creationInfo"]["created"] == "2024-05-06T07:08:09Z"
    by_name = {each["name"]: each for each in document["packages"]}
    assert by_name["musl"]["licenseDeclared"] == "MIT"
    assert by_name["odd_name!"]["licenseDeclared"] == "NOASSERTION"
    assert by_name["odd_name!"]["licenseComments"] == "declared as: see COPYING"
    assert by_name["odd_name!"]["supplier"] == "Organization: A <a@b>"
    assert by_name["@scope/core"]["externalRefs"][0]["referenceLocator"] == "pkg:npm/%40scope/core@2.0.0"


def test_the_same_packages_have_the_same_bill() -> None:
    assert json.dumps(_document().predicate) == json.dumps(_document().predicate)
