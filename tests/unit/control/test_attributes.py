"""BuildKit's attributes as a request, one after the other (FEATURES B-22, B-24)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from builder.control.attributes import cache_imports, named_contexts, outputs_of, request_of
from builder.control.messages.common import CacheEntry
from builder.control.messages.control import Exporter
from builder.control.sources import Sources
from builder.request import BuildRequest, OutputWanted
from registry_client.oci.platform import parse_platform
from runtime.errors import InvalidInput, Unsupported

SOURCES = Sources(
    context="/files", dockerfile=("Dockerfile", b"FROM scratch\n"), ignore=b"*.log\n", contexts={"a": "/a"}
)


def request(attrs: Mapping[str, str] = {}, **more: Any) -> BuildRequest:
    given: dict[str, Any] = {
        "sources": SOURCES, "tags": (), "outputs": (), "cache_from": (), "cache_to": (), "entitlements": (),
    }  # fmt: skip
    return request_of(attrs, **{**given, **more})


def test_a_build_without_attributes_is_the_plain_one() -> None:
    plain = request()
    assert plain == BuildRequest(
        context="/files",
        dockerfile="Dockerfile",
        dockerfile_text=b"FROM scratch\n",
        ignore_text=b"*.log\n",
        build_contexts={"a": "/a"},
    )


@pytest.mark.parametrize(
    ("attrs", "field", "value"),
    [
        ({"target": "x"}, "target", "x"),
        ({"build-arg:A": "1", "build-arg:B": ""}, "build_args", {"A": "1", "B": ""}),
        ({"label:a.b": "1"}, "labels", {"a.b": "1"}),
        ({"no-cache": ""}, "no_cache", True),
        ({"no-cache": "a,b"}, "no_cache", False),
        ({"no-cache": "a,b"}, "no_cache_filter", frozenset({"a", "b"})),
        ({"platform": "linux/amd64,linux/arm64"}, "platforms", tuple(map(parse_platform, ("linux/amd64", "linux/arm64")))),
        ({"image-resolve-mode": "pull"}, "pull", "always"),
        ({"image-resolve-mode": "local"}, "pull", "auto"),
        ({"force-network-mode": "none"}, "network", "none"),
        ({"add-hosts": '"a=1.2.3.4",b=[::1],c=host-gateway'}, "add_hosts",
         (("a", "1.2.3.4"), ("b", "::1"), ("c", "host-gateway"))),
        ({"cgroup-parent": "/p"}, "cgroup_parent", "/p"),
    ],
)  # fmt: skip
def test_an_attribute_is_its_field(attrs: dict[str, str], field: str, value: object) -> None:
    assert getattr(request(attrs), field) == value


def test_limits_and_entitlements() -> None:
    made = request(
        {"shm-size": "1048576", "ulimit": "nofile=10:20,core=0"},
        entitlements=["network.host", "security.insecure", "device"],
    )
    assert made.limits is not None and made.limits.shm_size == 1 << 20
    assert [(each.name, each.soft, each.hard) for each in made.rlimits] == [
        ("nofile", 10, 20),
        ("core", 0, 0),
    ]
    assert made.allow == {"network.host", "security.insecure"}


@pytest.mark.parametrize(
    "attrs",
    [
        {"platform": "x/y/z/w"}, {"force-network-mode": "bridge"}, {"add-hosts": "a"}, {"shm-size": "1g"},
        {"ulimit": "nofile"}, {"ulimit": "nofile=x"}, {"attest:provenance": "mode=most"},
    ],
)  # fmt: skip
def test_nonsense_is_an_error_that_says_what(attrs: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        request(attrs)


def test_hints_we_do_not_know_are_passed_over() -> None:
    assert request({"frontend.caps": "x", "local-sessionid:context": "y", "cmdline": "z"}) == request()


def test_contexts_by_name() -> None:
    attrs = {"context:a": "local:a", "context:b::linux/arm64": "docker-image://x", "contextkey": "context"}
    assert named_contexts(attrs) == {"a": "local:a", "b::linux/arm64": "docker-image://x"}


def test_caches_come_from_the_request_and_from_the_attributes_each_once() -> None:
    attrs = {
        "cache-imports": '[{"Type":"registry","Attrs":{"ref":"r/c"}},{"Type":"registry","Attrs":{"ref":"r/d"}}]'
    }
    imports = cache_imports(attrs, [CacheEntry("registry", {"ref": "r/c"})])
    cache_to = [CacheEntry("registry", {"ref": "r/c", "mode": "max"}), CacheEntry("inline")]
    made = request(cache_from=imports, cache_to=cache_to)
    assert [each.place for each in made.cache_from] == ["r/c", "r/d"]
    assert [(each.type, each.everything) for each in made.cache_to] == [("registry", True), ("inline", False)]


@pytest.mark.parametrize("text", ["{", "[1]", '[{"Attrs":{}}]'])
def test_imports_that_cannot_be_read_are_an_error(text: str) -> None:
    with pytest.raises(InvalidInput):
        cache_imports({"cache-imports": text}, [])


def test_a_cache_elsewhere_is_refused() -> None:
    with pytest.raises(Unsupported, match="gha"):
        request(cache_to=[CacheEntry("gha", {"scope": "x"})])


def test_provenance_nobody_asked_for_needs_an_output_that_carries_it() -> None:
    by_itself = {"attest:provenance": "mode=min,inline-only=true"}
    assert not request(by_itself).attest
    assert not request(by_itself, outputs=[OutputWanted(type="image")]).attest
    assert request(by_itself, outputs=[OutputWanted(type="registry", name="x")]).attest.provenance == "min"
    asked = {
        "attest:provenance": "type=provenance,mode=max,builder-id=me",
        "attest:sbom": "",
        "vcs:revision": "abc",
    }
    made = request(asked).attest
    assert (made.provenance, made.builder_id, made.sbom, made.vcs) == ("max", "me", True, {"revision": "abc"})
    assert not request({"attest:provenance": "disabled=true"}).attest


def test_outputs_name_the_image_or_go_to_a_place_of_their_own() -> None:
    tags, outputs = outputs_of(
        [
            Exporter("moby", {"name": "a,b:1"}),
            Exporter("moby", {"name": "r/c", "push": "true"}),
            Exporter("oci", {"name": "d", "compression": "zstd"}),
            Exporter("local", {}),
        ],
        "/scratch",
    )
    assert tags == ("a", "b:1", "r/c")
    assert [(each.number, each.wanted.type, each.wanted.name, each.path) for each in outputs] == [
        (0, "image", "", ""),
        (1, "registry", "r/c", ""),
        (2, "oci", "d", "/scratch/output-2"),
        (3, "local", "", "/scratch/output-3"),
    ]
    assert outputs[2].wanted.compression == "zstd"


def test_an_output_that_cannot_be_had_is_refused_before_anything_is_built() -> None:
    with pytest.raises(Unsupported):
        outputs_of([Exporter("elsewhere")], "/scratch")
