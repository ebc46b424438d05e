"""Layers as tars: written from an overlay upper directory, unpacked into one, compressed and decompressed.

Nothing here knows of the store or its database; directories and streams come in, digests and sizes go out. The same
directory always gives the same bytes (FEATURES A-100).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.store.layers.apply import apply_layer as apply_layer
    from runtime.store.layers.compression import compress as compress
    from runtime.store.layers.compression import decompress as decompress
    from runtime.store.layers.diff import add_tree as add_tree
    from runtime.store.layers.diff import hash_layer as hash_layer
    from runtime.store.layers.diff import write_layer as write_layer
    from runtime.store.layers.writer import EMPTY_LAYER as EMPTY_LAYER
    from runtime.store.layers.writer import DiffInfo as DiffInfo
    from runtime.store.layers.writer import LayerWriter as LayerWriter

_HOMES = {
    "apply_layer": "apply", "compress": "compression", "decompress": "compression", "add_tree": "diff", "hash_layer": "diff",
    "write_layer": "diff", "EMPTY_LAYER": "writer", "DiffInfo": "writer", "LayerWriter": "writer",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """What is asked for is imported then (PEP 562): who hashes a layer needs neither the reader nor a compressor."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return found
