# SPDX-License-Identifier: Apache-2.0
"""What the protocol needs of whoever decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.authzen.model import Answer, Evaluation, Search


class DecisionPoint(Protocol):
    """A policy, at one moment, as one PEP may ask it."""

    @property
    def snapshot(self) -> str:
        """Return the content hash of the policy; the same text as long as every answer would be the same."""

    @property
    def asker(self) -> str:
        """Return the stable name of the PEP that asks."""

    def evaluate(self, asked: Evaluation) -> Answer:
        """Decide, and keep the decision for the record.

        Raises InputError for a question that has no one meaning, AccessDenied for one that this PEP may not ask.
        """

    def permits(self, asked: Evaluation) -> bool:
        """Decide without a record, for a search; what cannot be asked is not permitted."""

    def candidates(self, search: Search) -> Sequence[str] | None:
        """Return whatever a search could find, by id or name, sorted and each once; None for a type that is not known.

        It holds nothing that the PEP may not ask about.
        """
