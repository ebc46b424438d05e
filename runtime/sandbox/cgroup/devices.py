"""Which device nodes a container may use: OCI's list of rules, for cgroup v1 files and as a v2 eBPF program."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def rule_text(rule: Json) -> str:
    """One rule in the words of devices.allow and devices.deny (cgroup-v1/devices.rst)."""
    kind = rule.get("type") or "a"
    major, minor = rule.get("major"), rule.get("minor")
    numbers = ["*" if number is None or number < 0 else str(number) for number in (major, minor)]
    access = rule.get("access") or "rwm"
    if kind == "a" and numbers == ["*", "*"] and set(access) == set("rwm"):
        return "a"
    return f"{kind} {':'.join(numbers)} {access}"
