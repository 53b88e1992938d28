# SPDX-License-Identifier: Apache-2.0
"""Clean paths and route templates as expressions of RE2, which has no look-ahead.

Envoy matches an expression against the whole input.  The input here is the *key* of a request: its method, a
space, and the raw path without the query.  A clean path holds no space, so a key has one reading.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from everyhop.authz.paths import CleanPath, classify_path
from everyhop.policy.model import SegmentKind

if TYPE_CHECKING:
    from everyhop.policy.model import Route

_METHOD: Final = "[!-~]+"
_BYTE: Final = 256


@lru_cache(maxsize=256)
def clean_key_expression(guarded: frozenset[str]) -> str:
    """Return the RE2 expression of every key whose path is clean, as :func:`classify_path` has it.

    The characters and triplets are asked of ``classify_path`` one by one, so there is one definition.  A segment
    is not ``.`` or ``..``: it starts with something else than a dot, or goes on after the dots.
    """
    characters = [c for c in map(chr, range(0x21, 0x7F)) if c not in "/%." and _is_clean(f"/a{c}", guarded)]
    other = (
        f"[{_class(characters)}]|{_triplets(guarded)}" if _triplets(guarded) else f"[{_class(characters)}]"
    )
    any_character = other.replace("[", r"[.", 1)
    segment = (
        rf"(?:(?:{other})(?:{any_character})*|\.(?:{other})(?:{any_character})*|\.\.(?:{any_character})+)"
    )
    return f"{_METHOD} /(?:{segment}(?:/{segment})*/?)?"


def literal_key(method: str, path: str) -> str:
    """Return the key of a literal route."""
    return f"{method} {path}"


def template_prefix(route: Route) -> str:
    """Return the key's start up to and with the slash before the first parameter."""
    literals = []
    for segment in route.segments:
        if segment.kind is not SegmentKind.LITERAL:
            break
        literals.append(segment.text + "/")
    return f"{route.method} /{''.join(literals)}"


def template_expression(route: Route) -> str:
    """Return the RE2 expression of the *clean* keys that a template matches.

    It is asked only after :func:`clean_key_expression`, so a parameter may be anything between two slashes.
    """
    return f"{re.escape(route.method)} {template_path_expression(route)}"


def template_path_expression(route: Route) -> str:
    """Return the RE2 expression of the clean paths that a template matches."""
    forms = {SegmentKind.PARAMETER: "[^/]+", SegmentKind.REST: ".*"}
    return "/" + "/".join(forms.get(s.kind) or re.escape(s.text) for s in route.segments)


def _is_clean(path: str, guarded: frozenset[str]) -> bool:
    return isinstance(classify_path(path, guarded), CleanPath)


def _class(characters: list[str]) -> str:
    return "".join(re.escape(c) if not c.isalnum() else c for c in characters)


def _triplets(guarded: frozenset[str]) -> str:
    rows = []
    for high in range(16):
        low = {f"{n:x}" for n in range(16) if _is_clean(f"/%{high * 16 + n:02x}", guarded)}
        if low:
            both = sorted(low | {digit.upper() for digit in low})
            rows.append(f"[{f'{high:x}'}{f'{high:X}'}][{''.join(both)}]")
    return f"%(?:{'|'.join(rows)})" if rows else ""
