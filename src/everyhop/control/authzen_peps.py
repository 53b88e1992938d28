# SPDX-License-Identifier: Apache-2.0
"""Who asks the decision point over AuthZEN, and about whom they may ask."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pep:
    """An authenticated PEP: a service of the policy, or the holder of an API key.

    ``name`` is its SPIFFE ID, or ``apikey:LOOKUP``.  ``service`` is the service that it is; a key's holder is none, and
    has ``scopes`` instead, each ``service.operation``.
    """

    name: str
    service: str | None = None
    scopes: frozenset[str] = frozenset()

    def may_ask(self, *, caller: str, target: str) -> bool:
        """Tell whether it may ask about calls from ``caller`` to ``target`` (names of services, or ``outside``).

        A service asks about calls that it makes or receives; a key's holder about calls from outside to the services of
        its scopes.
        """
        if self.service is not None:
            return self.service in {caller, target}
        return caller == "outside" and any(scope.partition(".")[0] == target for scope in self.scopes)

    def may_ask_about(self, *, target: str, operation: str | None) -> bool:
        """Tell whether it may learn about an operation (None: one that no route has) of a service it may ask about."""
        return self.service is not None or f"{target}.{operation}" in self.scopes

    @property
    def default_caller(self) -> str:
        """Return who calls when the PEP does not say: the PEP itself, or somebody outside."""
        return self.service or "outside"
