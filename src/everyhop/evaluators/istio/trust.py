# SPDX-License-Identifier: Apache-2.0
"""Trust domains of the mesh: what a principal means when the mesh has aliases (pilot/pkg/security/trustdomain/bundle.go)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LOCAL: Final = "cluster.local"
"""In a principal this means the mesh's own trust domain, whatever it is called."""
_PARTS: Final = 5  # TD/ns/N/sa/S


def with_aliases(values: Sequence[str], trust_domains: Sequence[str]) -> list[str]:
    """Return principals for the mesh's trust domain and each alias.

    Only what has the five parts ``TD/ns/N/sa/S`` with a trust domain other than ``*`` is expanded, and only if that is one of the
    mesh's (a star at either end, on either side, counts) or ``cluster.local``; anything else stays as written.
    """
    meant: list[str] = []
    for value in values:
        parts = value.split("/")
        written = parts[0]
        is_ours = written == LOCAL or any(_alike(written, one) for one in trust_domains)
        if len(parts) != _PARTS or written == "*" or not is_ours:
            meant.append(value)
            continue
        expanded = (
            value if written.startswith("*") and one.endswith(written[1:]) else "/".join((one, *parts[1:]))
            for one in trust_domains
        )
        meant += dict.fromkeys(expanded)
    return meant


def with_domains(values: Sequence[str], trust_domains: Sequence[str]) -> list[str]:
    """Return trust domains, each of the mesh's standing for all of them."""
    meant: dict[str, None] = {}
    for value in values:
        meant |= dict.fromkeys(trust_domains if value in trust_domains else (value,))
    return list(meant)


def _alike(one: str, other: str) -> bool:
    return other in {one, "*"} or any(_starred(a, b) for a, b in ((one, other), (other, one)))


def _starred(found: str, pattern: str) -> bool:
    if pattern.endswith("*") and found.startswith(pattern[:-1]):
        return True
    return pattern.startswith("*") and found.endswith(pattern[1:])
