"""What SPDX 2.3 requires of a document, checked without a library of its own."""

from __future__ import annotations

import re
from typing import Any


def check_spdx(document: Any) -> None:
    """The fields SPDX 2.3 requires, their form, and that every reference leads somewhere."""
    assert document["spdxVersion"] == "SPDX-2.3"
    assert document["dataLicense"] == "CC0-1.0"
    assert document["SPDXID"] == "SPDXRef-DOCUMENT"
    assert document["name"]
    assert re.fullmatch(r"https://[^#]+", document["documentNamespace"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document["creationInfo"]["created"])
    assert all(
        re.match("(Tool|Person|Organization): ", each) for each in document["creationInfo"]["creators"]
    )
    known = {"SPDXRef-DOCUMENT"}
    for each in document["packages"]:
        assert re.fullmatch(r"SPDXRef-[a-zA-Z0-9.-]+", each["SPDXID"])
        assert each["name"]
        assert each["downloadLocation"]
        assert each["SPDXID"] not in known
        known.add(each["SPDXID"])
        for reference in each.get("externalRefs", ()):
            assert reference["referenceLocator"].startswith("pkg:")
    ends = {
        each[key] for each in document["relationships"] for key in ("spdxElementId", "relatedSpdxElement")
    }
    assert ends <= known
    assert known - {"SPDXRef-DOCUMENT"} <= ends
