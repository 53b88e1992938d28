# SPDX-License-Identifier: Apache-2.0
"""What somebody did in this application, for the audit log.

Who did it comes from the call being served, as it was verified, and never from a header or an argument.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Self

from everyhop.auditlog.application import OUTCOMES, bounded_metadata, plain
from everyhop.core.errors import InputError
from everyhop.sdk.propagation import current

if TYPE_CHECKING:
    from collections.abc import Mapping

    Scalar = str | int | float | bool | None

_ID_BYTES: Final = 16
_MAX_ACTION: Final = 256
_MAX_TYPE: Final = 128
_MAX_RESOURCE: Final = 256
_MAX_ROUTE: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One action.  Made by :meth:`now`, which bounds everything that it is given.

    ``outcome`` is ``success``, ``failure``, ``denied``, or ``attempt`` for what is only about to be done; ``route`` the
    template of the route; ``duration_ms`` milliseconds; ``trace`` 32 and 16 hexadecimal digits with a dash between.
    """

    id: str
    action: str
    outcome: str
    resource_type: str | None = None
    resource_id: str | None = None
    caller: str | None = None
    user: str | None = None
    method: str | None = None
    route: str | None = None
    status: int | None = None
    duration_ms: float | None = None
    trace: str | None = None
    snapshot: str | None = None
    decision: str | None = None
    metadata: tuple[tuple[str, Scalar], ...] = field(default=())

    @classmethod
    def now(
        cls,
        action: str,
        *,
        outcome: str = "success",
        resource: tuple[str, object] | str | None = None,
        metadata: Mapping[str, object] | None = None,
        method: str | None = None,
        route: str | None = None,
        status: int | None = None,
        duration_ms: float | None = None,
    ) -> Self:
        """Return the event of an action in the call being served.

        ``resource`` is (type, id) or a type alone.  Raises InputError for another outcome, and never for what a caller
        may have chosen: texts are cut and cleaned, metadata that may not stay is counted in ``left_out``.
        """
        if outcome not in OUTCOMES:
            raise InputError(f"not an outcome: {outcome[:40]!r}", hint=", ".join(sorted(OUTCOMES)))
        kept, left_out = bounded_metadata(metadata or {})
        if left_out:
            kept["left_out"] = left_out
        kind, identity = resource if isinstance(resource, tuple) else (resource, None)
        verified = current()
        event = cls(
            id=secrets.token_hex(_ID_BYTES),
            action=plain(action, _MAX_ACTION) or "unnamed",
            outcome=outcome,
            resource_type=None if kind is None else plain(str(kind), _MAX_TYPE),
            resource_id=None if identity is None else plain(str(identity), _MAX_RESOURCE),
            method=method,
            route=None if route is None else plain(route, _MAX_ROUTE),
            status=status,
            duration_ms=duration_ms,
            metadata=tuple(kept.items()),
        )
        if verified is None:
            return event
        return replace(
            event,
            caller=verified.caller.spiffe_id,
            user=None if verified.user is None else verified.user.subject,
            trace=verified.trace.record or None,
            snapshot=verified.snapshot,
            decision=verified.decision_id,
        )

    @property
    def allowed(self) -> bool:
        """Tell whether it is no refusal and no failure: those are kept longer when there is no room."""
        return self.outcome in {"success", "attempt"}

    @property
    def via_sidecar(self) -> bool:
        """Tell that no sidecar knows of it."""
        return False

    def to_dict(self) -> dict[str, object]:
        """Return what there is of it as plain values, for a log."""
        shown = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "metadata"}
        return {name: value for name, value in shown.items() if value is not None} | dict(
            (("metadata", dict(self.metadata)),) if self.metadata else ()
        )
