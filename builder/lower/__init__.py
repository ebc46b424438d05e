"""From the typed Dockerfile to the build graph. Pure: base images are asked for first (`bases`), then handed in (`lower`)."""

from builder.lower.arguments import source_date_epoch, unused_arguments
from builder.lower.graph import bases, lower
from builder.lower.options import BaseWanted, LowerOptions, ResolvedBase

__all__ = [
    "BaseWanted",
    "LowerOptions",
    "ResolvedBase",
    "bases",
    "lower",
    "source_date_epoch",
    "unused_arguments",
]
