"""What refers to a manifest (distribution-spec, listing referrers; FEATURES C-21).

Registries without the referrers API keep an index under the tag `sha256-<hex>` instead, and the client that pushes a
manifest with a `subject` must keep that index up to date when the registry does not answer with `OCI-Subject`.
"""

from __future__ import annotations

from collections.abc import Iterable

import httpx

from registry_client.auth import repository_scope
from registry_client.connection import Connection
from registry_client.errors import Invalid, NotFound
from registry_client.exchange import Request
from registry_client.oci import media_types
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest, split_digest
from registry_client.oci.manifest import Index, Manifest, make_index, parse_manifest
from registry_client.paging import next_page
from registry_client.values import replace


class Referrers:
    """The referrers of one registry's manifests."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, repository: str, digest: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """All descriptors that refer to `digest`, of one artifact type if given."""
        url = f"{repository}/referrers/{digest}"
        if artifact_type:
            url += f"?{httpx.QueryParams({'artifactType': artifact_type})}"
        try:
            found = self._from_api(repository, url)
        except NotFound:
            found = self._fallback(repository, digest)
        # The registry may filter or not, and the tag never does.
        return tuple(one for one in found if not artifact_type or one.artifact_type == artifact_type)

    def announce(self, repository: str, manifest: Manifest | Index) -> None:
        """Add a pushed manifest to its subject's fallback index."""
        subject = manifest.subject
        if subject is None:
            return
        known = self._fallback(repository, subject.digest)
        if any(one.digest == manifest.digest for one in known):
            return
        config_type = manifest.config.media_type if isinstance(manifest, Manifest) else ""
        entry = replace(
            manifest.descriptor,
            artifact_type=manifest.artifact_type or config_type,
            annotations=manifest.annotations,
        )
        index = make_index((*known, entry))
        tag = fallback_tag(subject.digest)
        scopes = (repository_scope(repository, "pull", "push"),)
        headers = {"Content-Type": index.media_type}
        url = f"{repository}/manifests/{tag}"
        what = f"push {repository}:{tag} to {self._connection.host}"
        request = Request("PUT", url, what, scopes, headers, lambda: index.raw)
        self._connection.call(request, ok=(201, 200, 202))

    def _from_api(self, repository: str, url: str) -> Iterable[Descriptor]:
        what = f"list the referrers in {repository} at {self._connection.host}"
        scopes = (repository_scope(repository, "pull"),)
        found: list[Descriptor] = []
        seen: set[str] = set()
        while url and url not in seen:
            seen.add(url)
            request = Request("GET", url, what, scopes, {"Accept": media_types.OCI_INDEX})
            response, raw = self._connection.call(request)
            found.extend(_entries(raw, what))
            url = next_page(response, what)
        return found

    def _fallback(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        tag = fallback_tag(digest)
        what = f"pull {repository}:{tag} from {self._connection.host}"
        scopes = (repository_scope(repository, "pull"),)
        headers = {"Accept": ", ".join(media_types.ACCEPT)}
        request = Request("GET", f"{repository}/manifests/{tag}", what, scopes, headers)
        try:
            _, raw = self._connection.call(request)
        except NotFound:
            return ()
        return _entries(raw, what)


def fallback_tag(digest: Digest) -> str:
    """`sha256-<hex>`, cut to what a tag may hold."""
    algorithm, encoded = split_digest(digest)
    return f"{algorithm[:32]}-{encoded[:64]}"


def _entries(raw: bytes, what: str) -> tuple[Descriptor, ...]:
    try:
        index = parse_manifest(raw, media_types.OCI_INDEX)
    except ValueError as error:
        raise Invalid(f"cannot {what}: {error}") from error
    if not isinstance(index, Index):
        raise Invalid(f"cannot {what}: the answer is no index")
    return index.manifests
