# SPDX-License-Identifier: Apache-2.0
"""Who can be blocked, and for how long."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_VALUE: Final = 512
_V6_PREFIX: Final = 64


class SubjectKind(StrEnum):
    """What a subject is told by."""

    IDENTITY = "identity"  # a SPIFFE ID
    USER = "user"  # the subject of a verified user, or the pseudonym that stands for it
    API_KEY = "api-key"  # the public part of an API key
    ADDRESS = "address"  # an IPv4 address, or the /64 of an IPv6 one


@dataclass(frozen=True, slots=True)
class Subject:
    """One who acts.  As text: ``identity:spiffe://shop.example/service/orders``, ``address:203.0.113.7``."""

    kind: SubjectKind
    value: str

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.value}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``KIND:VALUE``; an address becomes the form under which it is counted.  Raises InputError."""
        kind, separator, value = text.partition(":")
        if not separator or kind not in set(SubjectKind):
            raise InputError(
                f"not a subject: {text[:80]!r}", hint="KIND:VALUE with one of " + ", ".join(SubjectKind)
            )
        return cls.of(SubjectKind(kind), value)

    @classmethod
    def of(cls, kind: SubjectKind, value: str) -> Self:
        """Make a subject.  Raises InputError for an empty, too long or unprintable value, or no address."""
        if not value or len(value) > MAX_VALUE or not value.isprintable():
            raise InputError(f"a subject has 1 to {MAX_VALUE} printable characters")
        if kind is SubjectKind.ADDRESS:
            value = _address(value)
        if kind is SubjectKind.IDENTITY and not value.startswith("spiffe://"):
            raise InputError(f"not a SPIFFE ID: {value[:80]!r}")
        return cls(kind, value)


class BlockMode(StrEnum):
    """What a block takes away."""

    BLOCK = "block"  # its calls are refused with 429
    QUARANTINE = "quarantine"  # its identity, tokens and connections end as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One blocked subject; ``until`` of None lasts until somebody lifts it.  ``finding`` is the id of a record."""

    subject: Subject
    mode: BlockMode
    since: datetime
    until: datetime | None
    reason: str
    by: str
    finding: str | None = None

    def holds(self, now: datetime) -> bool:
        """Tell whether it is in force."""
        return self.until is None or now < self.until

    def joined(self, other: Block) -> Block:
        """Return what is in force when ``other`` comes on top: the harder mode, the later end, and whose that is.

        So nobody shortens a block by blocking again; it is lifted, or it ends.
        """
        is_longer = other.until is None or (self.until is not None and other.until >= self.until)
        is_harder = other.mode is BlockMode.QUARANTINE and self.mode is BlockMode.BLOCK
        return replace(
            other if is_longer or is_harder else self,
            mode=BlockMode.QUARANTINE if is_harder else self.mode,
            since=self.since,
            until=other.until if is_longer else self.until,
        )

    def seconds_left(self, now: datetime, *, at_most: int = 86_400) -> int:
        """Return what ``Retry-After`` says: whole seconds, at least 1."""
        if self.until is None:
            return at_most
        return max(1, min(at_most, int((self.until - now).total_seconds()) + 1))


@dataclass(frozen=True, slots=True)
class Blocks:
    """All blocks of a moment; ``sequence`` grows with every change."""

    sequence: int = 0
    by_subject: Mapping[Subject, Block] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def build(cls, blocks: Iterable[Block], *, sequence: int) -> Self:
        """Index blocks."""
        return cls(sequence, MappingProxyType({block.subject: block for block in blocks}))

    def find(self, subjects: Iterable[Subject], now: datetime) -> Block | None:
        """Return the block in force of the first of ``subjects`` that has one."""
        if not self.by_subject:
            return None
        for subject in subjects:
            block = self.by_subject.get(subject)
            if block is not None and block.holds(now):
                return block
        return None


def _address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text.partition("/")[0].partition("%")[0])
    except ValueError as error:
        raise InputError(f"not an address: {text[:80]!r}") from error
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, _V6_PREFIX), strict=False))
    return str(address)
