"""The distribution API (distribution-spec 1.1): which URL does what. Storage is `repositories`' and `uploads`' business."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from registry_client.oci import media_types
from registry_client.oci.digest import Digest, parse_digest
from registry_client.oci.manifest import canonical_json
from runtime.errors import PipeError
from runtime.http.messages import HttpError, Request, Response, file_response, json_response
from runtime.http.router import Router
from runtime.registry.answers import API_VERSION, page_response, refusal
from runtime.registry.names import reference_of
from runtime.registry.records import Records
from runtime.registry.repositories import MANIFEST_LIMIT, Repositories
from runtime.registry.uploads import Session, Uploads
from runtime.store import Store

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?(\d+)-(\d+)(?:/(?:\d+|\*))?")
_CATALOG_PAGE = 1000


class RegistryApi:
    """A handler for `runtime.http`."""

    def __init__(self, store: Store, repositories: Repositories, records: Records, uploads: Uploads) -> None:
        self._content = store.content
        self._leases = store.leases
        self._repositories = repositories
        self._records = records
        self._uploads = uploads
        self._router = Router()
        for method, pattern, handler in self._routes():
            self._router.add(method, pattern, handler)

    def _routes(self) -> Iterable[tuple[str, str, Callable[[Request], Response]]]:
        name = "/v2/{name:path}"
        yield "GET", "/v2/", lambda request: json_response({}, headers=API_VERSION)
        yield "GET", "/v2", lambda request: json_response({}, headers=API_VERSION)
        yield "GET", "/v2/_catalog", self.catalog
        yield "GET", f"{name}/tags/list", self.list_tags
        yield "POST", f"{name}/blobs/uploads/", self.begin_upload
        yield "POST", f"{name}/blobs/uploads", self.begin_upload
        yield "GET", f"{name}/blobs/uploads/{{upload}}", self.upload_status
        yield "PATCH", f"{name}/blobs/uploads/{{upload}}", self.receive_chunk
        yield "PUT", f"{name}/blobs/uploads/{{upload}}", self.finish_upload
        yield "DELETE", f"{name}/blobs/uploads/{{upload}}", self.cancel_upload
        yield "GET", f"{name}/blobs/{{digest}}", self.get_blob
        yield "DELETE", f"{name}/blobs/{{digest}}", self.delete_blob
        yield "GET", f"{name}/manifests/{{selector}}", self.get_manifest
        yield "PUT", f"{name}/manifests/{{selector}}", self.put_manifest
        yield "DELETE", f"{name}/manifests/{{selector}}", self.delete_manifest
        yield "GET", f"{name}/referrers/{{digest}}", self.list_referrers

    def __call__(self, request: Request) -> Response:
        try:
            # This process lives long: what a request looks at must not be kept from the collector for good.
            with self._leases.passing():
                return self._router(request)
        except PipeError as error:
            # What the store refuses is the host's trouble: input was checked before it got there.
            raise HttpError(500, error.message, code="UNKNOWN") from error

    # ── lists ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def catalog(self, request: Request) -> Response:
        return page_response(request, self._repositories.names(), "repositories", {}, default=_CATALOG_PAGE)

    def list_tags(self, request: Request) -> Response:
        name = _repository(request)
        if not self._repositories.exists(name):
            raise refusal("NAME_UNKNOWN", f"repository name not known to registry: {name}")
        return page_response(request, self._repositories.tags(name), "tags", {"name": name})

    def list_referrers(self, request: Request) -> Response:
        found = self._repositories.referrers(_repository(request), _digest(request.params["digest"]))
        headers = {**API_VERSION, "Content-Type": media_types.OCI_INDEX}
        if wanted := request.argument("artifactType"):
            found = [each for each in found if each.artifact_type == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        record = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": [each.to_json() for each in found],
        }
        return Response(200, headers, canonical_json(record))

    # ── manifests ──────────────────────────────────────────────────────────────────────────────────────────────────

    def get_manifest(self, request: Request) -> Response:
        name, selector = _repository(request), _selector(request)
        held = self._repositories.find(name, selector)
        if held is None or not self._content.has(held.digest):
            raise refusal("MANIFEST_UNKNOWN", f"manifest unknown: {name} has no {selector}")
        headers = {**_content_headers(held.digest), "Content-Type": held.media_type}
        if _not_modified(request, headers["ETag"]):
            return Response(304, headers)
        return Response(200, headers, self._content.read(held.digest, MANIFEST_LIMIT))

    def put_manifest(self, request: Request) -> Response:
        name, selector = _repository(request), _selector(request)
        raw = request.body.read(MANIFEST_LIMIT)
        digest = Digest(selector) if ":" in selector else None
        tags = [_tag(tag) for tag in request.query.get("tag", ())] if digest else [selector]
        stored = self._repositories.put(name, digest, tags, raw, request.headers.get("content-type"))
        headers = {**_content_headers(stored.digest), "Location": f"/v2/{name}/manifests/{stored.digest}"}
        if stored.subject:
            headers["OCI-Subject"] = stored.subject
        if digest and tags:
            headers["OCI-Tag"] = ", ".join(tags)
        return Response(201, headers)

    def delete_manifest(self, request: Request) -> Response:
        name, selector = _repository(request), _selector(request)
        if ":" in selector:
            known = self._repositories.delete_manifest(name, Digest(selector))
        else:
            known = self._repositories.delete_tag(name, selector)
        if not known:
            raise refusal("MANIFEST_UNKNOWN", f"manifest unknown: {name} has no {selector}")
        return Response(202, API_VERSION)

    # ── blobs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def get_blob(self, request: Request) -> Response:
        name, digest = _repository(request), _digest(request.params["digest"])
        self._need_blob(name, digest)
        headers = {**_content_headers(digest), "Content-Type": "application/octet-stream"}
        if request.method == "HEAD":
            self._records.note_blob(name, digest)  # a push is likely to leave it out and count on it
        if _not_modified(request, headers["ETag"]):
            return Response(304, headers)
        file = self._content.open(digest)
        return file_response(file, self._content.size(digest), request, headers)

    def delete_blob(self, request: Request) -> Response:
        name, digest = _repository(request), _digest(request.params["digest"])
        self._need_blob(name, digest)
        self._records.delete_blob(name, digest)
        return Response(202, API_VERSION)

    def _need_blob(self, name: str, digest: Digest) -> None:
        if not self._repositories.has_blob(name, digest):
            raise refusal("BLOB_UNKNOWN", f"blob unknown to registry: {digest}")

    # ── uploads ────────────────────────────────────────────────────────────────────────────────────────────────────

    def begin_upload(self, request: Request) -> Response:
        name = _repository(request)
        mount = request.argument("mount")
        if mount and (digest := self._mountable(mount, request.argument("from"))):
            self._records.note_blob(name, digest)
            return _created(name, digest)
        upload = self._uploads.begin(name)
        whole = request.argument("digest")
        if not whole:
            return _accepted(name, upload, 0, 202)
        digest = _digest(whole)
        with self._uploads.session(name, upload) as session:
            self._receive(name, session, request)
            return self._finish(name, session, digest)

    def _mountable(self, text: str, source: str) -> Digest | None:
        digest = _digest(text)
        try:
            visible = (
                self._repositories.has_blob(_named(source), digest) if source else self._content.has(digest)
            )
        except HttpError:
            return None
        return digest if visible else None

    def upload_status(self, request: Request) -> Response:
        name = _repository(request)
        with self._uploads.session(name, request.params["upload"]) as session:
            return _accepted(name, session.id, session.offset, 204)

    def receive_chunk(self, request: Request) -> Response:
        name = _repository(request)
        with self._uploads.session(name, request.params["upload"]) as session:
            self._receive(name, session, request)
            return _accepted(name, session.id, session.offset, 202)

    def finish_upload(self, request: Request) -> Response:
        name, digest = _repository(request), _digest(request.argument("digest"))
        with self._uploads.session(name, request.params["upload"]) as session:
            self._receive(name, session, request)
            return self._finish(name, session, digest)

    def cancel_upload(self, request: Request) -> Response:
        with self._uploads.session(_repository(request), request.params["upload"]) as session:
            self._uploads.cancel(session)
        return Response(204, API_VERSION)

    def _receive(self, name: str, session: Session, request: Request) -> None:
        text = request.headers.get("content-range")
        if text:
            match = _CONTENT_RANGE.fullmatch(text.strip())
            length = request.content_length
            if match is None or int(match[2]) < int(match[1]):
                raise refusal("BLOB_UPLOAD_INVALID", f"invalid Content-Range {text!r}", 400)
            if length is not None and length != int(match[2]) - int(match[1]) + 1:
                raise refusal("SIZE_INVALID", f"Content-Range {text!r} with a body of {length} bytes")
            if int(match[1]) != session.offset:
                headers = dict(_accepted(name, session.id, session.offset, 416).headers)
                message = f"chunk begins at byte {match[1]}, expected {session.offset}"
                raise refusal("BLOB_UPLOAD_INVALID", message, 416, headers)
        session.receive(request.body)

    def _finish(self, name: str, session: Session, digest: Digest) -> Response:
        self._records.note_blob(name, digest)  # before it exists: the collector must not find it unnoted
        self._uploads.finish(session, digest)
        return _created(name, digest)


def _accepted(name: str, upload: str, offset: int, status: int) -> Response:
    headers = {
        **API_VERSION,
        "Location": f"/v2/{name}/blobs/uploads/{upload}",
        "Range": f"0-{max(offset - 1, 0)}",
        "Docker-Upload-UUID": upload,
    }
    return Response(status, headers)


def _created(name: str, digest: Digest) -> Response:
    return Response(201, {**_content_headers(digest), "Location": f"/v2/{name}/blobs/{digest}"})


def _content_headers(digest: Digest) -> dict[str, str]:
    return {**API_VERSION, "Docker-Content-Digest": digest, "ETag": f'"{digest}"'}


def _not_modified(request: Request, etag: str) -> bool:
    asked = [part.strip() for part in request.headers.get("if-none-match").split(",")]
    return request.method in ("GET", "HEAD") and (etag in asked or asked == ["*"])


def _repository(request: Request) -> str:
    """The canonical name of the repository in the URL."""
    return _named(request.params["name"])


def _named(name: str) -> str:
    try:
        return reference_of(name).familiar_name
    except ValueError as error:
        raise refusal("NAME_INVALID", str(error)) from error


def _digest(text: str) -> Digest:
    try:
        return parse_digest(text)
    except ValueError as error:
        raise refusal("DIGEST_INVALID", str(error)) from error


def _selector(request: Request) -> str:
    """A tag or a digest, checked."""
    text = request.params["selector"]
    return _digest(text) if ":" in text else _tag(text)


def _tag(text: str) -> str:
    if not _TAG.fullmatch(text):
        raise refusal("TAG_INVALID", f"invalid tag {text[:140]!r}")
    return text
