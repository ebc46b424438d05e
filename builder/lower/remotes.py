"""Sources of ADD that are not files of the context: URLs and git repositories (FEATURES A-76, A-77)."""

from __future__ import annotations

import posixpath
import re

from builder.graph import GitSource, HttpSource
from registry_client.values import replace

_SCP = r"(?:[a-zA-Z0-9_-]+@)[a-zA-Z0-9.-]+:(?!//)\S+"
_QUERY = (
    "ref",
    "tag",
    "branch",
    "subdir",
    "checksum",
    "commit",
    "keep-git-dir",
    "submodules",
    "mtime",
    "fetch-by-commit",
)


def remote_source(text: str) -> GitSource | HttpSource | None:
    """The remote a word names, None for a path; ValueError when it is a git URL that says nonsense."""
    git = parse_git(text)
    if git is not None:
        return git
    if text.startswith(("http://", "https://")):
        from urllib.parse import unquote, urlsplit

        name = posixpath.basename(unquote(urlsplit(text).path))
        return HttpSource(url=text, filename=name if name not in ("", ".", "..", "/") else "__unnamed__")
    return None


def parse_git(text: str) -> GitSource | None:
    """`https://host/x.git`, `git@host:x`, `ssh://…`, `git://…`, each with `#ref:subdir` or a query."""
    url, _, fragment = text.partition("#")
    address, _, query = url.partition("?")
    if text.startswith(("http://", "https://")):
        from urllib.parse import urlsplit

        if not urlsplit(address).path.endswith(".git"):
            return None
    elif not text.startswith(("git://", "ssh://")) and not ("@" in url and re.fullmatch(_SCP, url)):
        return None
    source = GitSource(url=address)
    if query:
        source = _with_query(replace(source, url=address), query, text)
    if fragment:
        ref, _, subdir = fragment.partition(":")
        source = replace(source, ref=ref or source.ref, subdir=subdir or source.subdir)
    subdir = posixpath.normpath("/" + source.subdir).lstrip("/")
    return replace(source, subdir=subdir)


def _with_query(source: GitSource, query: str, text: str) -> GitSource:
    from urllib.parse import parse_qs

    values = {key: found[-1] for key, found in parse_qs(query, keep_blank_values=True).items()}
    unknown = sorted(values.keys() - set(_QUERY))
    if unknown:
        raise ValueError(f"unexpected query {unknown[0]!r} in git source {text!r}")
    refs = [key for key in ("ref", "tag", "branch") if values.get(key)]
    if len(refs) > 1:
        raise ValueError(f"git source {text!r} names both {refs[0]} and {refs[1]}")
    prefix = {"ref": "", "tag": "refs/tags/", "branch": "refs/heads/"}
    return replace(
        source,
        ref=prefix[refs[0]] + values[refs[0]] if refs else "",
        subdir=values.get("subdir", ""),
        checksum=values.get("checksum") or values.get("commit", ""),
        keep_git_dir=_flag(values, "keep-git-dir", False, text),
        submodules=_flag(values, "submodules", True, text),
    )


def _flag(values: dict[str, str], name: str, default: bool, text: str) -> bool:
    value = values.get(name)
    if value is None:
        return default
    if value.lower() not in ("", "1", "true", "0", "false"):
        raise ValueError(f"invalid {name}={value} in git source {text!r}")
    return value.lower() not in ("0", "false")


def without_credentials(url: str) -> str:
    """A URL as it may be published: nobody's user name, password or token in it."""
    if "@" not in url:
        return url
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(url)
    if "://" not in url or "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
