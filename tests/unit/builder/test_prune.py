"""What policies remove from the build cache (FEATURES B-12)."""

from __future__ import annotations

from builder.gc import default_policies
from builder.prune import Disk, Entry, Policy, doomed_by

HOUR = 3600 * 10**9
NOW = 10_000 * HOUR
GB = 10**9
ROOMY = Disk(1000 * GB, 900 * GB)


def entry(name: str, *, age: float, size: int = GB, kind: str = "exec", shared: bool = False) -> Entry:
    used = NOW - int(age * HOUR)
    return Entry(name, kind, name, size, used, used, 1, shared, key=name)


def gone(entries: list[Entry], *policies: Policy, disk: Disk = ROOMY) -> list[str]:
    last_used_first = sorted(entries, key=lambda each: each.used, reverse=True)
    return [each.id for each in doomed_by(last_used_first, policies, NOW, disk)]


def test_without_caps_all_goes_that_is_meant() -> None:
    entries = [entry("new", age=1), entry("old", age=50), entry("of an image", age=99, shared=True)]
    assert gone(entries, Policy()) == ["old", "new"]
    assert gone(entries, Policy(unused_seconds=24 * 3600)) == ["old"]
    assert gone(entries, Policy(everything=True)) == ["of an image", "old", "new"]
    assert gone(entries, Policy(ids=("of",))) == ["of an image"]


def test_the_least_recently_used_go_until_the_cap_holds() -> None:
    entries = [entry(str(age), age=age) for age in range(1, 6)]
    assert gone(entries, Policy(max_used=2 * GB)) == ["5", "4", "3"]
    assert gone(entries, Policy(max_used=2 * GB, reserved=4 * GB)) == ["5"]
    assert gone(entries, Policy(reserved=3 * GB)) == ["5", "4"]
    assert gone(entries, Policy(max_used=9 * GB)) == []


def test_free_space_is_made_but_not_out_of_what_is_reserved() -> None:
    entries = [entry(str(age), age=age) for age in range(1, 6)]
    tight = Disk(100 * GB, 7 * GB)
    assert gone(entries, Policy(min_free=9 * GB), disk=tight) == ["5", "4"]
    assert gone(entries, Policy(min_free=9 * GB, reserved=4 * GB), disk=tight) == ["5"]
    assert gone(entries, Policy(min_free=9 * GB), disk=ROOMY) == []


def test_policies_follow_each_other() -> None:
    entries = [entry("a", age=3), entry("b", age=2), entry("mount", age=1, kind="cache mount")]
    policies = Policy(kinds=("cache mount",)), Policy(max_used=GB)
    assert gone(entries, *policies) == ["mount", "a"]


def test_by_default_what_is_easily_made_goes_after_two_days_and_the_rest_after_sixty() -> None:
    policies = default_policies(ROOMY)
    young = [entry("pip", age=47, kind="cache mount"), entry("git", age=1, kind="git")]
    assert gone(young, *policies) == []
    old = [entry("pip", age=49, kind="cache mount"), entry("run", age=49), entry("http", age=1, kind="http")]
    assert gone(old, *policies) == ["pip"]
    small = [entry("pip", age=99, kind="cache mount", size=500 * 10**6)]
    assert gone(small, *policies) == []
    ancient = [entry(str(days), age=days * 24, size=6 * GB) for days in (1, 61, 62, 63)]
    assert gone(ancient, *policies) == ["63", "62", "61"]


def test_by_default_what_images_share_goes_last() -> None:
    entries = [entry("shared", age=9, size=70 * GB, shared=True), entry("own", age=1, size=70 * GB)]
    tight = Disk(100 * GB, 5 * GB)
    assert gone(entries, *default_policies(tight), disk=tight) == ["own"]
    assert gone(entries[:1], *default_policies(tight), disk=tight) == ["shared"]
