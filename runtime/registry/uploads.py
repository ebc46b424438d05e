"""Blobs on their way in (distribution-spec, pushing blobs).

A session is one resumable writer of the store. The serving process keeps it open between requests, so that chunks need
not be hashed twice; after a pause or a restart it is found again by its row and its partial file. Bytes that arrived stay when a connection
breaks. Nothing is a blob before its digest was verified; what a kill leaves behind is a partial file for the collector.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from registry_client.oci.digest import Digest, split_digest
from runtime.errors import InvalidInput
from runtime.registry.answers import refusal
from runtime.registry.records import Records
from runtime.store.content import Content, Writer

_LIFETIME = 6 * 3600.0  # of a session nobody continues
_PAUSE = 60.0  # after which its file is closed, to be opened and hashed again


class Session:
    """One upload; used by one request at a time."""

    def __init__(self, upload: str, writer: Writer) -> None:
        self.id = upload
        self.writer = writer
        self.busy = threading.Lock()
        self.touched = time.monotonic()

    @property
    def offset(self) -> int:
        return self.writer.offset

    def receive(self, body: Iterable[bytes]) -> None:
        for chunk in body:
            self.writer.write(chunk)


class Uploads:
    """All sessions of one serving process."""

    def __init__(
        self, content: Content, records: Records, lifetime: float = _LIFETIME, pause: float = _PAUSE
    ) -> None:
        self._content = content
        self._records = records
        self._lifetime = lifetime
        self._pause = pause
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def begin(self, repository: str) -> str:
        """Open a session; its id."""
        self.expire()
        upload = uuid.uuid4().hex
        self._records.add_upload(upload, repository)
        return upload

    @contextmanager
    def session(self, repository: str, upload: str) -> Iterator[Session]:
        """A session for the length of one request."""
        if not self._records.has_upload(upload, repository):
            raise refusal("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        session = self._taken(upload)
        try:
            yield session
        finally:
            session.touched = time.monotonic()
            session.busy.release()

    def _taken(self, upload: str) -> Session:
        """The session, ours alone until its `busy` is released."""
        with self._lock:
            session = self._sessions.get(upload)
            if session is None:
                session = self._sessions[upload] = Session(
                    upload, self._content.writer(resume_key=_key(upload))
                )
            if not session.busy.acquire(blocking=False):
                raise refusal("BLOB_UPLOAD_INVALID", "another request of this upload is under way", 409)
        return session

    def finish(self, session: Session, digest: Digest) -> None:
        """Verify the whole blob and give it its name; the session is over, also when the digest does not match."""
        writer = session.writer
        try:
            if split_digest(digest)[0] != split_digest(writer.digest)[0]:
                writer = self._hashed_anew(session, digest)
            if writer.digest != digest:
                raise refusal(
                    "DIGEST_INVALID", f"provided digest {digest} did not match the uploaded content"
                )
            writer.commit()
        finally:
            self.cancel(session)

    def cancel(self, session: Session) -> None:
        with self._lock:
            self._sessions.pop(session.id, None)
        session.writer.discard()
        self._records.remove_upload(session.id)

    def expire(self) -> None:
        """Close the files of sessions that pause, and end those nobody continued."""
        limit = time.monotonic() - self._pause
        with self._lock:
            pausing = [each for each in self._sessions.values() if each.touched < limit]
            for session in pausing:
                if session.busy.acquire(blocking=False):
                    del self._sessions[session.id]
                    session.writer.__exit__()
                    session.busy.release()
        for upload in self._records.uploads_before(time.time() - self._lifetime):
            with self._lock:
                active = upload in self._sessions
            if not active:
                self._content.writer(resume_key=_key(upload)).discard()
                self._records.remove_upload(upload)

    def close(self) -> None:
        """Let go of the files; sessions can be continued by the next process."""
        with self._lock:
            sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            session.writer.__exit__()

    def _hashed_anew(self, session: Session, digest: Digest) -> Writer:
        # The algorithm is known only now; the store hashes what it has when a writer is opened on it.
        session.writer.__exit__()
        try:
            session.writer = self._content.writer(digest, resume_key=_key(session.id))
        except InvalidInput as error:
            raise refusal("DIGEST_INVALID", error.message) from error
        return session.writer


def _key(upload: str) -> str:
    return f"registry/{upload}"
