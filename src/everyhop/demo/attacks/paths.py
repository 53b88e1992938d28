# SPDX-License-Identifier: Apache-2.0
"""Attacks on the path: spellings that two readers may read differently (field of CVE-2019-9901, CVE-2026-26205, …).

The storefront may read ``/files/{path...}``, ``/orders/{id}`` and ``/{page}``; ``/admin/export`` and ``/@me``
exist and are not for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from everyhop.demo.model import Attempt, Seen

if TYPE_CHECKING:
    from everyhop.demo.range import Range

_THEME: Final = "path"
_AMBIGUOUS: Final = "400 ambiguous-path"
_MALFORMED: Final = "400"
_TRICKS: Final[tuple[tuple[str, str | bytes, str], ...]] = (
    ("double slash", "//admin/export", _AMBIGUOUS),
    ("dot segments", "/files/../admin/export", _AMBIGUOUS),
    ("single dot segment", "/admin/./export", _AMBIGUOUS),
    ("encoded dots", "/files/%2e%2e/admin/export", _AMBIGUOUS),
    ("half-encoded dots", "/files/.%2e/admin/export", _AMBIGUOUS),
    ("encoded slash", "/files/..%2fadmin%2Fexport", _AMBIGUOUS),
    ("backslashes", "/files\\..\\admin\\export", _AMBIGUOUS),
    ("encoded backslash", "/files/..%5cadmin%5Cexport", _AMBIGUOUS),
    ("double encoding", "/files/%252e%252e%252fadmin", _AMBIGUOUS),
    ("encoded NUL", "/orders/7%00.png", _AMBIGUOUS),
    ("encoded newline", "/orders/7%0aX", _AMBIGUOUS),
    ("broken percent triplet", "/files/%2", _AMBIGUOUS),
    ("encoded plain letters", "/%61dmin/export", _AMBIGUOUS),
    ("encoded @ of a literal route", "/%40me", _AMBIGUOUS),
    ("matrix parameter", "/orders;v=1/7", _AMBIGUOUS),
    ("matrix parameter and dots", "/files;/../admin/export", _AMBIGUOUS),
    ("encoded semicolon", "/files/a%3b/../b", _AMBIGUOUS),
    ("quotes and braces", '/files/{"a"}', _AMBIGUOUS),
    ("trailing slash", "/admin/export/", "403 unknown-operation"),
    ("other case", "/Admin/Export", "403 unknown-operation"),
    ("query instead of path", "/admin/export?x=/orders/7", "403 no-rule"),
    ("fragment in the request target", "/orders/7#/admin/export", _MALFORMED),
    ("bytes beyond ASCII", b"/files/\xff\xfe", _MALFORMED),
    ("absolute form of the target", "http://orders/admin/export", _MALFORMED),
    ("authority form of the target", "@evil.example/orders", _MALFORMED),
    ("no leading slash", "admin/export", _MALFORMED),
    ("path of 32 KiB", "/files/" + "a" * 32768, "431"),
)


def _spelt(target: str | bytes, method: str = "GET") -> Callable[[Range], Seen]:
    def run(field: Range) -> Seen:
        reply = field.call("storefront", "orders", method, target)
        return Seen(text=reply.text, decision=reply.decision)

    return run


def attacks() -> list[Attempt]:
    """Return the attacks of this theme."""
    tricks = [
        Attempt(theme=_THEME, name=name, expected=expected, run=_spelt(target))
        for name, target, expected in _TRICKS
    ]
    star = Attempt(theme=_THEME, name="OPTIONS *", expected=_MALFORMED, run=_spelt("*", "OPTIONS"))
    return [*tricks, star]
