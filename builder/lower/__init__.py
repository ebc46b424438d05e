"""From the typed Dockerfile to the build graph. Pure: base images are asked for first (`bases`), then handed in (`lower`)."""

from builder.lower.arguments import unused_arguments
from builder.lower.graph import bases, lower
from builder.lower.options import BaseWanted, LowerOptions, ResolvedBase

__all__ = [
    "BaseWanted",
    "LowerOptions",
    "ResolvedBase",
    "bases",
    "lower",
    "unused_arguments",
]
