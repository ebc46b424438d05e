"""Package URLs (github.com/package-url/purl-spec): one line that names a package wherever it came from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from registry_client.oci.platform import Platform
from registry_client.reference import parse_reference


def purl(
    kind: str, name: str, version: str = "", *, namespace: str = "", qualifiers: Mapping[str, str] = {}
) -> str:
    """`pkg:kind/namespace/name@version?key=value`, encoded; qualifiers without a value are left out."""
    parts = [quote(part, safe=":") for part in namespace.split("/") if part]
    text = "/".join([f"pkg:{kind}", *parts, quote(name, safe=":")])
    if version:
        text += "@" + quote(version, safe=":")
    said = [f"{key}={quote(value, safe=':')}" for key, value in sorted(qualifiers.items()) if value]
    return text + ("?" + "&".join(said) if said else "")


def image_purl(reference: str, platform: Platform | str) -> str:
    """An image by its name, tag and platform, as BuildKit names it."""
    if reference.startswith("oci-layout://"):
        # Where it lay on this machine is nobody's business.
        name = reference.removeprefix("oci-layout://").rstrip("/").rpartition("/")[2]
        name, _, version = name.partition("@")
        return purl("oci", name, version, qualifiers={"platform": str(platform)})
    parsed = parse_reference(reference).or_latest()
    namespace, _, name = parsed.familiar_name.rpartition("/")
    qualifiers = {"digest": str(parsed.digest or ""), "platform": str(platform)}
    return purl("docker", name, parsed.tag, namespace=namespace, qualifiers=qualifiers)
