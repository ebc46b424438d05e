"""The form of a shared cache and the flags that name one (FEATURES B-10)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.sharing.form import (
    CONFIG_TYPE,
    INLINE_KEY,
    SharedContent,
    SharedRecord,
    dump_config,
    dump_records,
    parse_cache,
)
from builder.sharing.wanted import CacheFrom, CacheTo, parse_cache_from, parse_cache_to
from registry_client.oci import media_types
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import digest_of
from registry_client.oci.manifest import Manifest, make_manifest
from runtime.errors import PipeError

LAYER = Descriptor(media_types.OCI_LAYER_GZIP, digest_of(b"blob"), 4)
RECORD = SharedRecord(
    key="sha256:k",
    shape="sha256:s",
    kind="exec.v1",
    label="[stage 1/1] RUN true",
    root="",
    diff_id=digest_of(b"layer"),
    chain_id=digest_of(b"layer"),
    made=5,
    size=7,
    fields={"args": ["true"], "env": []},
    files=("0\0a",),
)
CONTENT = SharedContent("sha256:c", "[]", "sha256:d")


def manifest_for(raw: bytes, media_type: str = CONFIG_TYPE) -> Manifest:
    return make_manifest(Descriptor(media_type, digest_of(raw), len(raw)), (LAYER,))


def test_what_was_written_is_read_again() -> None:
    raw = dump_config([RECORD], [CONTENT], [RECORD.diff_id])
    cache = parse_cache(raw, manifest_for(raw))
    assert cache is not None
    assert (cache.records, cache.contents) == ((RECORD,), (CONTENT,))
    assert (cache.records[0].fields, cache.records[0].files) == (RECORD.fields, RECORD.files)
    assert cache.layers == {RECORD.diff_id: LAYER}


def test_the_bytes_do_not_depend_on_the_order_contents_were_learned_in() -> None:
    others = [CONTENT, replace(CONTENT, selector="[1]")]
    assert dump_config([RECORD], others, []) == dump_config([RECORD], others[::-1], [])


def test_an_image_may_carry_records_and_one_without_is_no_cache() -> None:
    image = {"rootfs": {"type": "layers", "diff_ids": [RECORD.diff_id]}}
    raw = json.dumps(image).encode()
    assert parse_cache(raw, manifest_for(raw, media_types.OCI_CONFIG)) is None
    raw = json.dumps({**image, INLINE_KEY: dump_records([RECORD], [])}).encode()
    cache = parse_cache(raw, manifest_for(raw, media_types.OCI_CONFIG))
    assert cache is not None
    assert cache.layers == {RECORD.diff_id: LAYER}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 99},
        {"records": [{}]},
        {"records": 5},
        {"contents": [[]]},
        {"contents": None},
        {"diff_ids": []},
        {"diff_ids": ["no digest"]},
        {"records": [{**json.loads(dump_config([RECORD], [], []))["records"][0], "fields": []}]},
        {"records": [{**json.loads(dump_config([RECORD], [], []))["records"][0], "chain_id": "../.."}]},
    ],
)
def test_a_damaged_config_is_told(change: dict[str, object]) -> None:
    raw = json.dumps({**json.loads(dump_config([RECORD], [], [RECORD.diff_id])), **change}).encode()
    with pytest.raises(ValueError):
        parse_cache(raw, manifest_for(raw))


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"[" * 100_000])
def test_what_is_no_object_is_told(raw: bytes) -> None:
    with pytest.raises(ValueError):
        parse_cache(raw, manifest_for(raw))


DAMAGE = st.one_of(
    st.none(),
    st.integers(),
    st.just("\ud800"),
    st.text(),
    st.just([]),
    st.just({}),
    st.just(10**40),
    st.floats(),
)


@settings(deadline=None)
@given(st.data())
def test_any_damage_is_a_value_error(data: st.DataObject) -> None:
    """Some value anywhere in the config or manifest is another one."""
    config = json.loads(dump_config([RECORD], [CONTENT], [RECORD.diff_id]))
    at = config
    while isinstance(at, (dict, list)) and at:
        keys = sorted(at) if isinstance(at, dict) else range(len(at))
        key = data.draw(st.sampled_from(keys))
        if not at[key] or not isinstance(at[key], (dict, list)) or data.draw(st.booleans()):
            at[key] = data.draw(DAMAGE)
            break
        at = at[key]
    raw = json.dumps(config).encode()
    try:
        cache = parse_cache(raw, manifest_for(raw))
    except ValueError:
        return
    assert cache is not None
    for record in cache.records:
        json.dumps(record.fields, ensure_ascii=False).encode()
        assert record.made < 1 << 63


def test_flags_mean_what_they_mean_in_docker() -> None:
    assert parse_cache_from("r.example/shop:cache") == CacheFrom(
        type="registry", place="r.example/shop:cache"
    )
    assert parse_cache_from("type=local,src=/c,tag=main") == CacheFrom(type="local", place="/c", tag="main")
    assert parse_cache_to("type=inline") == CacheTo(type="inline")
    assert parse_cache_to('"type=local","dest=/a,b",mode=max,compression=uncompressed,reset=true') == CacheTo(
        type="local", place="/a,b", everything=True, compression="", reset=True
    )
    assert parse_cache_to("type=registry,ref=a/b,ignore-error=true,oci-mediatypes=true").ignore_error


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("type=gha", "not supported"),
        ("type=s3,region=eu-1,bucket=b,mode=max", "type=s3 is not supported"),
        ("type=azblob,name=n", "type=azblob is not supported"),
        ("type=lokal,dest=x", "unknown type"),
        ("type=local", "needs dest="),
        ("type=inline,mode=max", "mode 'max'"),
        ("type=registry,ref=shop/UPPER", "lower case"),
        ("type=local,dst=x", "unknown field"),
        ("type=local,dest=x,reset=maybe", "reset=maybe"),
        ("type=local,dest=x,compression=lzma", "compression"),
        ("type=local,dest=x,image-manifest=false", "image-manifest"),
    ],
)
def test_a_wrong_flag_is_told(text: str, part: str) -> None:
    with pytest.raises(PipeError, match=part):
        parse_cache_to(text)
