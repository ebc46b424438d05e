"""Our errors in the words of gRPC and BuildKit: a code, a sentence, and where in the Dockerfile it is.

The place goes along as BuildKit's own detail, which is JSON under the name of a Go type; clients show the lines from it.
"""

from __future__ import annotations

import base64
import json

from runtime import errors
from runtime.grpc.status import Any, Code, GrpcError

_SOURCE = "github.com/moby/buildkit/errdefs.Source+json"
# Whatever is not here is UNKNOWN, which clients print without a word of their own before it.
_CODES: tuple[tuple[type[errors.PipeError], Code], ...] = (
    (errors.Cancelled, Code.CANCELLED),
    (errors.TimedOut, Code.DEADLINE_EXCEEDED),
    (errors.Unsupported, Code.UNIMPLEMENTED),
    (errors.Unavailable, Code.UNAVAILABLE),
)


def in_grpc(error: errors.PipeError) -> GrpcError:
    code = next((code for category, code in _CODES if isinstance(error, category)), Code.UNKNOWN)
    text = f"{error.message} ({error.hint})" if error.hint else error.message
    return GrpcError(code, text, [_source(error)] if error.span is not None else [])


def _source(error: errors.PipeError) -> Any:
    span = error.span
    assert span is not None
    data = span.source.text.encode("utf-8", "surrogateescape")
    record = {
        "info": {
            "filename": span.source.name,
            "data": base64.b64encode(data).decode(),
            "language": "Dockerfile",
        },
        "ranges": [{"start": {"line": span.line}, "end": {"line": span.last_line}}],
    }
    return Any(_SOURCE, json.dumps(record).encode())
