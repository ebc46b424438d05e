"""A build context from a URL: the directory of a git tree, or the file a server gives."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from builder.graph import GitSource, HttpSource
from builder.operations.step import Setting
from builder.state import FilesState
from registry_client.values import replace
from runtime.store.store import Store

if TYPE_CHECKING:
    from builder.policy import SourcePolicy
    from builder.ssh import Agent


def fetch_context(
    store: Store,
    setting: Setting,
    secrets: Mapping[str, bytes],
    agent: Agent,
    url: str,
    keep_git_dir: bool = False,
    policy: SourcePolicy | None = None,
) -> tuple[str, str, int | None]:
    """A path (a directory, or an archive or Dockerfile), the key of the cache record that says what it is, and its time."""
    from builder.lower.remotes import remote_source

    source = remote_source(url)
    assert source is not None
    if policy:
        from builder.lower.permitted import permitted_remote

        source = permitted_remote(policy, source)
    if keep_git_dir and isinstance(source, GitSource):
        source = replace(source, keep_git_dir=True)
    files = _fetch(store, setting, secrets, agent, source)
    if isinstance(source, GitSource):
        return files.tree.path, files.definition, files.time
    path = os.path.join(files.tree.path, source.filename)
    time = files.time if files.time is not None else _newest_entry(path)
    return path, files.definition, time


def time_of_remote(
    store: Store,
    setting: Setting,
    secrets: Mapping[str, bytes],
    agent: Agent,
    source: GitSource | HttpSource,
) -> int | None:
    """Of a commit; of a file, which the server says; of the newest entry of an archive (A-98)."""
    files = _fetch(store, setting, secrets, agent, source)
    if files.time is not None or isinstance(source, GitSource):
        return files.time
    return _newest_entry(os.path.join(files.tree.path, source.filename))


def _fetch(
    store: Store,
    setting: Setting,
    secrets: Mapping[str, bytes],
    agent: Agent,
    source: GitSource | HttpSource,
) -> FilesState:
    if isinstance(source, GitSource):
        from builder.operations.git import fetch_git

        return fetch_git(store, source, agent)
    from builder.operations.http import fetch_http

    return fetch_http(store, setting, source, secrets)


def _newest_entry(path: str) -> int | None:
    from builder.operations.archive import is_archive, newest_time

    return newest_time(path) if is_archive(path) else None
