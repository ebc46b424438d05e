"""Hand text to nftables: through libnftables in this process (a command costs 0.2 ms), else through the `nft` program.

What the text says is `rules`' business.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import Any

from runtime.errors import HostFault

_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON
_HANDLES = 1 << 3
_lock = threading.Lock()  # libnftables keeps global state (its parser, its symbol tables)


class NftError(HostFault):
    """What nft refused, in its own words."""


@functools.cache
def _library() -> Any:
    """libnftables, or None; `nft` itself is a thin program around it, so where one is the other is too."""
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError:
        return None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = (ctypes.c_uint32,)
    library.nft_run_cmd_from_buffer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    for name in ("nft_ctx_get_error_buffer", "nft_ctx_get_output_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
        getattr(library, name).argtypes = (ctypes.c_void_p,)
    for name in ("nft_ctx_buffer_error", "nft_ctx_buffer_output", "nft_ctx_free"):
        getattr(library, name).argtypes = (ctypes.c_void_p,)
    library.nft_ctx_output_set_flags.argtypes = (ctypes.c_void_p, ctypes.c_uint)
    return library


@functools.cache
def _program() -> str:
    from shutil import which

    return which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin") or ""


def available() -> bool:
    return _library() is not None or bool(_program())


def run(text: str, *, json: bool = False, handles: bool = False) -> str:
    """Run commands as one transaction: all of them happen, or none and `NftError`."""
    library = _library()
    if library is None:
        return _run_program(text, json, handles)
    with _lock:
        context = library.nft_ctx_new(0)
        try:
            library.nft_ctx_buffer_error(context)
            library.nft_ctx_buffer_output(context)
            library.nft_ctx_output_set_flags(context, json * _JSON | handles * _HANDLES)
            status = library.nft_run_cmd_from_buffer(context, text.encode())
            output = library.nft_ctx_get_output_buffer(context).decode()
            error = library.nft_ctx_get_error_buffer(context).decode()
        finally:
            library.nft_ctx_free(context)
    if status:
        raise _failure(text, error)
    return str(output)


def _run_program(text: str, json: bool, handles: bool) -> str:
    import subprocess

    if not _program():
        raise HostFault("nftables is not installed", hint="install the package nftables")
    flags = ["-j"] * json + ["-a"] * handles
    done = subprocess.run(
        [_program(), *flags, "-f", "-"], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise _failure(text, done.stderr)
    return done.stdout


def _failure(text: str, error: str) -> NftError:
    reason = (error.strip().splitlines() or ["no reason given"])[0]
    hint = "run as root; inside a container, one that is privileged" if "not permitted" in error else ""
    return NftError(f"nft refused `{text.strip().splitlines()[0]}`: {reason}", hint=hint)
