# SPDX-License-Identifier: Apache-2.0
"""What Envoy makes of a raw ``:path``: its normalisation and its URI templates.

Measured on Envoy 1.40.0, and asked again by ``tests/integration/evaluators``: ``normalize_path`` resolves dot segments, also encoded
ones, turns a backslash into a slash, decodes encoded unreserved characters, encodes ``"<>^`{|}`` and refuses ``%00``; other escapes
stay as they came.  ``#`` and bytes outside of ASCII are refused with 400 before that.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from everyhop.core.errors import InputError

_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPED: Final = frozenset('"<>^`{|} ')
_HEX: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_ABSOLUTE: Final = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_PRINTABLE: Final = re.compile(r"[!-~]+")
_LITERAL: Final = r"A-Za-z0-9\-._~%!$&'()*+,;:@="
_VALID_LITERAL: Final = re.compile(f"[{_LITERAL}]+")


class Normalization(StrEnum):
    """Istio's ``meshConfig.pathNormalization``; BASE is its default."""

    NONE = "NONE"
    BASE = "BASE"
    MERGE_SLASHES = "MERGE_SLASHES"
    DECODE_AND_MERGE_SLASHES = "DECODE_AND_MERGE_SLASHES"


class EscapedSlashes(StrEnum):
    """What ``path_with_escaped_slashes_action`` does with ``%2F`` and ``%5C``."""

    KEEP = "KEEP_UNCHANGED"
    REJECT = "REJECT_REQUEST"
    UNESCAPE = "UNESCAPE_AND_FORWARD"


def normalized(path: str, how: Normalization) -> str | None:
    """Return the path, with its query, that filters see; None where Envoy answers 400."""
    decodes = how is Normalization.DECODE_AND_MERGE_SLASHES
    return canonical(
        path,
        normalizes=how is not Normalization.NONE,
        merges=how in {Normalization.MERGE_SLASHES, Normalization.DECODE_AND_MERGE_SLASHES},
        escaped=EscapedSlashes.UNESCAPE if decodes else EscapedSlashes.KEEP,
    )


def canonical(path: str, *, normalizes: bool, merges: bool, escaped: EscapedSlashes) -> str | None:
    """Return the path that filters see under the options of Envoy's connection manager; None where it answers 400.

    Redirecting (``UNESCAPE_AND_REDIRECT``) is not modelled: what it answers is no decision.
    """
    raw = _ABSOLUTE.sub("", path, count=1) if _ABSOLUTE.match(path) else path
    if raw.startswith("?") or not raw:
        raw = f"/{raw}" if raw != path else raw
    if "#" in raw or not _PRINTABLE.fullmatch(raw) or not raw.startswith("/"):
        return None
    bare, mark, query = raw.partition("?")
    if escaped is EscapedSlashes.REJECT and re.search("%2f|%5c", bare, re.IGNORECASE):
        return None
    if escaped is EscapedSlashes.UNESCAPE:
        bare = re.sub("%5c", r"\\", re.sub("%2f", "/", bare, flags=re.IGNORECASE), flags=re.IGNORECASE)
    if normalizes:
        if "%00" in bare:
            return None
        bare = _without_dots(_unescaped(bare).replace("\\", "/"))
        bare = "".join(f"%{ord(char):02X}" if char in _ESCAPED else char for char in bare)
    if merges and "//" in bare:
        # Taken apart and joined, so a path of nothing but slashes keeps one at either end and stays "//".
        inner = "/".join(segment for segment in bare.split("/") if segment)
        bare = f"/{inner}{'/' if bare.endswith('/') else ''}"
    return bare + mark + query


def _unescaped(path: str) -> str:
    """Decode encoded unreserved characters.

    A percent sign that begins no escape stays, unless it would begin one with what was just decoded: then it becomes ``%25``.
    """
    out = ""
    stray = -1  # where the last percent sign stands in the output that begins no escape
    at = 0
    while at < len(path):
        found = _HEX.match(path, at)
        if found is None:
            stray = len(out) if path[at] == "%" else stray
            out += path[at]
            at += 1
            continue
        at = found.end()
        code = int(found[1], 16)
        if code not in _UNRESERVED:
            out += found[0]
            continue
        out += chr(code)
        if stray >= 0 and len(out) - stray in {2, 3}:
            following = (out[stray:] + path[at : at + 1])[:3]
            if _HEX.fullmatch(following):
                out = f"{out[:stray]}%25{out[stray + 1 :]}"
    return out


def _without_dots(path: str) -> str:
    kept: list[str] = []
    segments = path[1:].split("/")
    for index, segment in enumerate(segments):
        if segment not in {".", ".."}:
            kept.append(segment)
            continue
        if segment == ".." and kept:
            kept.pop()
        if index == len(segments) - 1:
            kept.append("")
    return "/" + "/".join(kept)


def template_pattern(template: str) -> re.Pattern[str]:
    """Return what a URI template (``*`` one segment, ``**`` any rest) matches of a path without its query, as a whole.

    ``*`` is one or more, ``**`` none or more of the characters that a segment may have (``**`` of slashes too); characters that
    Envoy's literals lack, such as ``|``, are matched by neither.  Raises InputError for what Envoy would not load; named
    variables are read by nobody here.
    """
    if not template.startswith("/"):
        raise InputError(f"a path template starts with a slash: {template[:80]!r}")
    has_rest = False
    parts: list[str] = []
    segments = template[1:].split("/")
    for index, segment in enumerate(segments):
        if segment in {"*", "**"}:
            if has_rest:
                raise InputError(f"nothing can follow ** in a path template: {template[:80]!r}")
            has_rest = segment == "**"
            parts.append(f"[{_LITERAL}/]*" if has_rest else f"[{_LITERAL}]+")
        elif segment == "" and index == len(segments) - 1:
            parts.append("")
        elif "*" not in segment and _VALID_LITERAL.fullmatch(segment):
            parts.append(re.escape(segment))
        else:
            raise InputError(f"a path template has no segment {segment[:40]!r}: {template[:80]!r}")
    return re.compile("/" + "/".join(parts))


def bare_path(path: str) -> str:
    """Return a path without query and fragment."""
    return re.split(r"[?#]", path, maxsplit=1)[0]
