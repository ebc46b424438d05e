"""A build context from a URL: the directory of a git tree, or the file a server gives."""

from __future__ import annotations

import os
from collections.abc import Mapping

from builder.graph import GitSource
from builder.operations.step import Setting
from runtime.store.store import Store


def fetch_context(store: Store, setting: Setting, secrets: Mapping[str, bytes], url: str) -> tuple[str, str]:
    """A path (a directory, or an archive or Dockerfile), and the key of the cache record that says what it is."""
    from builder.lower.remotes import remote_source

    source = remote_source(url)
    assert source is not None
    if isinstance(source, GitSource):
        from builder.operations.git import fetch_git

        tree = fetch_git(store, source)
        return tree.tree.path, tree.definition
    from builder.operations.http import fetch_http

    files = fetch_http(store, setting, source, secrets)
    return os.path.join(files.tree.path, source.filename), files.definition
