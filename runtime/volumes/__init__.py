"""Named and anonymous volumes of the local driver."""

from runtime.volumes.values import Volume
from runtime.volumes.volumes import Volumes

__all__ = ["Volume", "Volumes"]
