"""The one error of the Dockerfile front end."""

from __future__ import annotations

from runtime.errors import InvalidInput


class DockerfileError(InvalidInput):
    """What is written in the Dockerfile cannot be built; `span` says where."""
