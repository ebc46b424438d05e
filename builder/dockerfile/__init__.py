"""Dockerfile text to a typed tree. What it means for an image is `builder.lower`'s; no file is opened here."""

from builder.dockerfile.ast import Dockerfile
from builder.dockerfile.errors import DockerfileError
from builder.dockerfile.parser import parse_dockerfile

__all__ = ["Dockerfile", "DockerfileError", "parse_dockerfile"]
