"""Which licences may be written as an SPDX expression: those whose every word is an identifier of SPDX's list.

People write "MIT", "GPL-2.0-only AND MIT" and "see COPYING" into the same field. Only identifiers we know for sure are
passed on as an expression, since an unknown one makes the whole document invalid.
"""

from __future__ import annotations

import re

_IDENTIFIERS = """
    0BSD AFL-2.1 AFL-3.0 AGPL-3.0-only AGPL-3.0-or-later Apache-1.1 Apache-2.0 Artistic-1.0 Artistic-1.0-Perl
    Artistic-2.0 BSD-1-Clause BSD-2-Clause BSD-2-Clause-Patent BSD-3-Clause BSD-4-Clause BSD-Source-Code BSL-1.0
    BlueOak-1.0.0 CC-BY-3.0 CC-BY-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CC0-1.0 CDDL-1.0 CDDL-1.1 CPL-1.0 EPL-1.0 EPL-2.0
    EUPL-1.2 FSFAP FSFUL FSFULLR FTL GFDL-1.2-only GFDL-1.2-or-later GFDL-1.3-only GFDL-1.3-or-later GPL-1.0-only
    GPL-1.0-or-later GPL-2.0-only GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later HPND ICU IJG ISC LGPL-2.0-only
    LGPL-2.0-or-later LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0-only LGPL-3.0-or-later LPPL-1.3c Libpng MIT MIT-0 MPL-1.1
    MPL-2.0 MS-PL NCSA NTP OFL-1.1 OLDAP-2.8 OpenSSL PHP-3.01 PSF-2.0 PostgreSQL Python-2.0 QPL-1.0 Ruby SGI-B-2.0
    SMLNJ Sleepycat TCL UPL-1.0 Unicode-DFS-2016 Unlicense Vim W3C WTFPL X11 ZPL-2.1 Zlib bzip2-1.0.6 curl libtiff
    zlib-acknowledgement
"""
_EXCEPTION_IDENTIFIERS = """
    Autoconf-exception-3.0 Bison-exception-2.2 Classpath-exception-2.0 GCC-exception-2.0 GCC-exception-3.1
    LLVM-exception Libtool-exception Linux-syscall-note OpenJDK-assembly-exception-1.0 openvpn-openssl-exception
"""
_KNOWN = frozenset(_IDENTIFIERS.split())
_EXCEPTIONS = frozenset(_EXCEPTION_IDENTIFIERS.split())
_WORD = re.compile(r"\s*(\(|\)|[^\s()]+)")
_DEPTH = 32


def spdx_expression(text: str) -> str:
    """`text` if it is an expression of known licences, else ""."""
    words = _WORD.findall(text)
    if not words or len(words) > 200:
        return ""
    rest = _alternatives(words, 0)
    return " ".join(words).replace("( ", "(").replace(" )", ")") if rest == [] else ""


def _alternatives(words: list[str], depth: int) -> list[str] | None:
    """What is left behind `licence (AND|OR licence)*`; None where that is not what the words begin with."""
    rest = _one(words, depth)
    while rest and rest[0] in ("AND", "OR"):
        rest = _one(rest[1:], depth)
    return rest


def _one(words: list[str], depth: int) -> list[str] | None:
    if not words or depth > _DEPTH:
        return None
    if words[0] == "(":
        inner = _alternatives(words[1:], depth + 1)
        return inner[1:] if inner and inner[0] == ")" else None
    if words[0] not in _KNOWN:
        return None
    rest = words[1:]
    if rest[:1] != ["WITH"]:
        return rest
    return rest[2:] if len(rest) > 1 and rest[1] in _EXCEPTIONS else None
