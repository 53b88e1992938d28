# SPDX-License-Identifier: Apache-2.0
"""What a permitted call carries besides the caller's certificate: a token, a user; and what a token may grant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from everyhop.policy.access import TCP, AccessIndex
from everyhop.policy.model import OUTSIDE, TokenMode, UserMode

if TYPE_CHECKING:
    from everyhop.policy.model import Operation, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What a call must carry.

    ``audience`` is the ``aud`` of its access token (``payments`` or ``payments#charge``), None where no token is
    asked for.  ``once`` says that a token is good for one call.
    """

    token: TokenMode
    once: bool
    user: UserMode
    audience: str | None

    @property
    def is_empty(self) -> bool:
        """Tell whether the certificate alone is enough and no user's claims are believed."""
        return self.token is TokenMode.NONE and self.user is UserMode.NONE


def requirement_of(target: str, operation: Operation | None, user: UserMode) -> Requirement:
    """Return the requirement at an operation for callers of one user mode (None: bytes of a tcp service)."""
    token = TokenMode.NONE if operation is None else operation.token
    name = "" if operation is None else operation.name
    audience = {
        TokenMode.NONE: None,
        TokenMode.SERVICE: target,
        TokenMode.OPERATION: f"{target}#{name}",
    }[token]
    return Requirement(
        token=token, once=operation is not None and operation.once, user=user, audience=audience
    )


class Grants:
    """What the policy grants each caller, as tokens and API keys may say it; built once per snapshot."""

    def __init__(self, snapshot: Snapshot, index: AccessIndex | None = None) -> None:
        self._snapshot = snapshot
        self._index = index or AccessIndex(snapshot)

    def operations(self, caller: str, target: str) -> frozenset[str] | None:
        """Return the operations of ``target`` that ``caller`` may call: the widest scope of a token.

        ``caller`` is a service name, a SPIFFE ID in normal form, or ``outside``.  None for a caller or a target that
        the policy does not declare; empty for a tcp service.
        """
        name = self._name(caller)
        service = self._snapshot.services.get(target)
        if name is None or service is None:
            return None
        return frozenset(
            operation.name
            for operation in service.operations
            if self._index.of(target, operation.name).allows(name, is_probe=False)
        )

    def connects(self, caller: str, target: str) -> bool:
        """Tell whether a service may connect to a tcp service; both by name."""
        return self._index.of(target, TCP).allows(caller, is_probe=False)

    def audiences(self, caller: str) -> list[tuple[str, str | None]]:
        """Return the tokens that a caller's calls need, as (service, operation or None), sorted.

        Empty for a caller that is not declared.
        """
        found: set[tuple[str, str | None]] = set()
        for target, service in self._snapshot.services.items():
            granted = self.operations(caller, target) or frozenset()
            for operation in service.operations:
                if operation.name in granted and operation.token is not TokenMode.NONE:
                    is_narrow = operation.token is TokenMode.OPERATION
                    found.add((target, operation.name if is_narrow else None))
        return sorted(found, key=lambda audience: (audience[0], audience[1] or ""))

    def edge_scopes(self) -> frozenset[str]:
        """Return what callers from outside may call anywhere, as ``service.operation``."""
        return frozenset(
            f"{target}.{operation}"
            for target in self._snapshot.services
            for operation in self.operations(OUTSIDE, target) or ()
        )

    def _name(self, caller: str) -> str | None:
        if caller == OUTSIDE or caller in self._snapshot.services:
            return caller
        owner = self._snapshot.service_of(caller)
        return None if owner is None else owner.name
