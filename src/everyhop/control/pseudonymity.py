# SPDX-License-Identifier: Apache-2.0
"""Pseudonyms on the server: given for persons, and resolved for the owner at one place.

Whoever compares subjects (detection, blocks) does so by pseudonym, as records hold it: :meth:`Pseudonymity.of` makes it
of what a command or a call names.  Blocking; call it from a worker thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from everyhop.auditlog.addresses import canonical_address
from everyhop.auditlog.personal import (
    PSEUDONYM,
    PersonKind,
    disguise,
    is_pseudonym,
    pseudonyms_in,
    reveal,
    reveal_text,
)
from everyhop.core.errors import Conflict, NotFound

if TYPE_CHECKING:
    from everyhop.auditlog import Record
    from everyhop.auditlog.personal import Wish


class PseudonymStore(Protocol):
    """What keeps them."""

    def names_of(self, wanted: Collection[Wish], /) -> dict[Wish, str]:
        """Return the pseudonym of each value, made where there was none."""

    def find(self, kind: PersonKind, value: str, /) -> str | None:
        """Return the pseudonym of a value if it has one."""

    def values_of(self, wanted: Collection[str], /) -> dict[str, str]:
        """Return the value of each pseudonym that is known."""

    def forget(self, kind: PersonKind, value: str, /, *, reason: str, by: str, at: datetime) -> str:
        """Delete what connects a person with their pseudonym; raises NotFound."""


class Pseudonymity:
    """Names persons and reads the names.

    Where naming is off every name is its own, and pseudonyms of before are still read.  Without a store there are none.
    """

    def __init__(self, store: PseudonymStore | None = None, *, is_on: bool = True) -> None:
        self._store = store
        self._is_on = is_on and store is not None

    @property
    def is_on(self) -> bool:
        """Tell whether new records get pseudonyms."""
        return self._is_on

    def of(self, kind: PersonKind | str, value: str) -> str:
        """Return what records say for a person: the pseudonym, made where there was none.

        A pseudonym that is known is returned as it is.  Of an address, it is that of its /64 where it is IPv6.
        """
        if self._store is None or not self._is_on:
            return value
        kind = PersonKind(kind)
        if is_pseudonym(value) and self._store.values_of([value]):
            return value
        wish = (kind, _counted(kind, value))
        return self._store.names_of([wish])[wish]

    def known(self, kind: PersonKind | str, value: str) -> str:
        """Return what records say for a person, for a question: a pseudonym that is not there is not made."""
        if self._store is None or is_pseudonym(value):
            return value
        kind = PersonKind(kind)
        return self._store.find(kind, _counted(kind, value)) or value

    def names_of(self, wanted: Collection[Wish]) -> list[str]:
        """Return a pseudonym for each value, in the order given; what is off gives the values."""
        if self._store is None or not self._is_on:
            return [value for _, value in wanted]
        names = self._store.names_of(list(dict.fromkeys(wanted)))
        return [names[wish] for wish in wanted]

    def resolve(self, text: str) -> str:
        """Return a text with persons for their pseudonyms; those of the forgotten stay."""
        found = PSEUDONYM.findall(text) if self._store is not None and "~" in text else []
        return reveal_text(text, self._store.values_of(set(found))) if found and self._store else text

    def reveal(self, records: Sequence[Record]) -> tuple[Record, ...]:
        """Return records with persons for their pseudonyms."""
        if self._store is None:
            return tuple(records)
        found: set[str] = set().union(*(pseudonyms_in(record) for record in records))
        values = self._store.values_of(found) if found else {}
        return tuple(reveal(record, values) for record in records)

    def disguise(self, records: Iterable[Record]) -> tuple[Record, ...]:
        """Return records as they would be stored, for a comparison; makes no pseudonym."""
        return tuple(disguise(record, self.known) for record in records) if self._is_on else tuple(records)

    def check(self, records: Iterable[Record]) -> None:
        """Raise Conflict where a record has a pseudonym that is nobody's: its maker has not heard of a forgetting yet."""
        if self._store is None or not self._is_on:
            return
        found: set[str] = set().union(*(pseudonyms_in(record) for record in records))
        if found and (unknown := found - self._store.values_of(found).keys()):
            raise Conflict(f"{len(unknown)} pseudonyms are not known (any more)", hint="ask for them again")

    def forget(self, kind: PersonKind, value: str, *, reason: str, by: str, at: datetime) -> str:
        """Forget a person; raises NotFound when they have no pseudonym.  Returns what was their pseudonym."""
        if self._store is None:
            raise NotFound("there are no pseudonyms", hint="set pseudonyms = true")
        return self._store.forget(kind, _counted(kind, value), reason=reason, by=by, at=at)


def _counted(kind: PersonKind, value: str) -> str:
    return (canonical_address(value) or value) if kind is PersonKind.ADDRESS else value
