# SPDX-License-Identifier: Apache-2.0
"""What was taken back before its time: keys, single tokens, whole transactions, all of a subject up to a moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from everyhop.core.errors import InputError
from everyhop.tokens.limits import EXPIRY_SKEW_SECONDS, LATEST, MAX_LIFETIME_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_REVOCATIONS: Final = 100_000


class Revocable(Protocol):
    """What both kinds of token have."""

    @property
    def kid(self) -> str:
        """The name of the key that signed it."""

    @property
    def jti(self) -> str:
        """Its own name."""

    @property
    def txn(self) -> str | None:
        """The transaction it belongs to."""

    @property
    def subject(self) -> str:
        """For whom it speaks."""

    @property
    def issued_at(self) -> int:
        """When it was issued, in seconds."""


@dataclass(frozen=True, slots=True)
class Revocations:
    """Immutable; ``jtis`` and ``txns`` map to the second when the last token of that name is over.

    ``subs`` maps a subject to the second up to which everything that was issued to it is taken back.

    Keyed on names, never on the bytes of a token: an ES256 signature has a twin that is just as good.
    """

    kids: frozenset[str] = frozenset()
    jtis: Mapping[str, int] = field(default_factory=dict)
    txns: Mapping[str, int] = field(default_factory=dict)
    subs: Mapping[str, int] = field(default_factory=dict)
    any: bool = field(init=False, compare=False, repr=False)
    """Whether anything is revoked at all; it is read on every call."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "jtis", MappingProxyType(dict(self.jtis)))
        object.__setattr__(self, "txns", MappingProxyType(dict(self.txns)))
        object.__setattr__(self, "subs", MappingProxyType(dict(self.subs)))
        object.__setattr__(self, "any", bool(self.kids or self.jtis or self.txns or self.subs))

    def __bool__(self) -> bool:
        return self.any

    def is_revoked(self, token: Revocable) -> bool:
        """Tell whether the token, its key, its transaction or what its subject had then was taken back."""
        if token.jti in self.jtis or token.kid in self.kids or token.txn in self.txns:
            return True
        return bool(self.subs) and token.issued_at <= self.subs.get(token.subject, -1)

    def since(self, now: float) -> Revocations:
        """Return the revocations that still matter at ``now``: those of tokens that could still be believed."""
        oldest = now - MAX_LIFETIME_SECONDS
        return Revocations(
            self.kids, _alive(self.jtis, now), _alive(self.txns, now), _alive(self.subs, oldest)
        )

    def to_members(self) -> dict[str, Any]:
        """Return the JSON form, in a fixed order."""
        return {
            "kids": sorted(self.kids),
            "jtis": dict(sorted(self.jtis.items())),
            "txns": dict(sorted(self.txns.items())),
            "subs": dict(sorted(self.subs.items())),
        }

    @classmethod
    def from_members(cls, members: Mapping[str, Any]) -> Revocations:
        """Read the JSON form; raises InputError when it is not exactly that, or names more than 100,000."""
        kids = members.get("kids", [])
        if not isinstance(kids, list) or not all(isinstance(kid, str) for kid in kids):
            raise InputError("'kids' is not a list of names")
        return cls(frozenset(kids), _times(members, "jtis"), _times(members, "txns"), _times(members, "subs"))


NOTHING_REVOKED: Final = Revocations()


def _alive(times: Mapping[str, int], now: float) -> dict[str, int]:
    return {name: until for name, until in times.items() if now < until + EXPIRY_SKEW_SECONDS}


def _times(members: Mapping[str, Any], name: str) -> dict[str, int]:
    value = members.get(name, {})
    if not isinstance(value, dict) or len(value) > MAX_REVOCATIONS:
        raise InputError(f"{name!r} is not an object of at most {MAX_REVOCATIONS} members")
    for key, until in value.items():
        if not isinstance(key, str) or type(until) is not int or not 0 <= until <= LATEST:
            raise InputError(f"{name!r} does not map names to times in seconds")
    return dict(value)
