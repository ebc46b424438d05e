"""An inventory as an SPDX 2.3 document (spdx.github.io/spdx-spec/v2.3). Pure.

Its namespace comes from the image's id and its time from the image, so the same image has the same document.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from builder.attest.statement import SPDX_DOCUMENT, Attestation
from builder.sbom.licenses import spdx_expression
from builder.sbom.package import Package
from builder.sbom.scan import Inventory
from registry_client.oci.digest import Digest, split_digest

_NONE = "NOASSERTION"
_ROOT = "SPDXRef-Image"
_NAMESPACE = "https://spdx.org/spdxdocs"


def spdx_document(inventory: Inventory, name: str, image_id: Digest, created: str, tool: str) -> Attestation:
    """The bill of material of one image, as a predicate."""
    packages = [(_identifier(each), each) for each in inventory.packages]
    document: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"{_NAMESPACE}/{_plain(name)}-{split_digest(image_id)[1]}",
        "creationInfo": {"created": _seconds(created), "creators": [f"Tool: {tool}"]},
    }
    if inventory.notes:
        document["comment"] = "\n".join(inventory.notes)
    document["packages"] = [_image(name, image_id, inventory), *(_package(*each) for each in packages)]
    document["relationships"] = [
        _relation("SPDXRef-DOCUMENT", "DESCRIBES", _ROOT),
        *(_relation(_ROOT, "CONTAINS", identifier) for identifier, _ in packages),
    ]
    return Attestation(SPDX_DOCUMENT, document)


def _seconds(created: str) -> str:
    """SPDX knows no fractions of a second."""
    found = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", created)
    return f"{found[0]}Z" if found else "1970-01-01T00:00:00Z"


def _plain(text: str) -> str:
    """Only what an identifier may hold."""
    return re.sub(r"[^a-zA-Z0-9.-]+", "-", text).strip("-") or "image"


def _identifier(package: Package) -> str:
    """The same for the same package; the digits part those whose names differ only in what must not be written."""
    told = hashlib.sha256(f"{package.purl}\0{package.place}".encode("utf-8", "replace")).hexdigest()[:16]
    return f"SPDXRef-Package-{package.kind}-{_plain(package.name)[:100]}-{told}"


def _image(name: str, image_id: Digest, inventory: Inventory) -> dict[str, Any]:
    distribution = inventory.distribution
    about = " ".join(filter(None, (distribution.name or distribution.id, distribution.version)))
    algorithm, encoded = split_digest(image_id)
    return {
        "SPDXID": _ROOT,
        "name": name,
        "versionInfo": image_id,
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "licenseConcluded": _NONE,
        "licenseDeclared": _NONE,
        "copyrightText": _NONE,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{"algorithm": algorithm.upper(), "checksumValue": encoded}],
        **({"comment": f"root file system of {about}"} if about else {}),
    }


def _package(identifier: str, package: Package) -> dict[str, Any]:
    expression = spdx_expression(package.license)
    found: dict[str, Any] = {
        "SPDXID": identifier,
        "name": f"{package.namespace}/{package.name}"
        if package.namespace and package.kind in ("npm", "golang", "maven")
        else package.name,
        "versionInfo": package.version,
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "sourceInfo": f"found in /{package.place}",
        "licenseConcluded": _NONE,
        "licenseDeclared": expression or _NONE,
        "copyrightText": _NONE,
    }
    if package.license and not expression:
        found["licenseComments"] = f"declared as: {package.license}"
    if supplier := " ".join(package.supplier.split()):
        found["supplier"] = f"Organization: {supplier}"
    found["externalRefs"] = [
        {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": package.purl}
    ]
    return found


def _relation(subject: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": subject, "relationshipType": kind, "relatedSpdxElement": other}
