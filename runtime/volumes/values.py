"""The noun of this room: a volume."""

from __future__ import annotations

from collections.abc import Mapping

from registry_client.values import field, frozen


@frozen(kw_only=True)
class Volume:
    """A directory that outlives containers. `options` (type, device, o) say what is mounted in its place."""

    name: str
    path: str
    anonymous: bool = False
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    created: float = 0.0

    @property
    def elsewhere(self) -> bool:
        """Whether its content is not in our directory but where `device` says."""
        return bool(self.options.get("device") or self.options.get("type"))
