"""Control groups of containers, v1 and v2 behind one interface.

`detect` reads the host's layout once. A `Hierarchies` makes `Cgroup`s; a `Cgroup` is limited, entered, watched, frozen,
killed and removed. A controller that is missing is an error only when the plan asks for its limit.
"""

from __future__ import annotations

from runtime.sandbox.cgroup.layout import Cgroup, Hierarchies, detect

__all__ = ["Cgroup", "Hierarchies", "detect"]
