# SPDX-License-Identifier: Apache-2.0
"""When an authority is due for its next step.  Pure: state, settings and time in, answers out."""

from __future__ import annotations

from datetime import datetime

from everyhop.authority.model import (
    AuthorityEntry,
    AuthorityKind,
    AuthoritySettings,
    AuthorityState,
    AuthorityStatus,
)


def moment_in_life(entry: AuthorityEntry, fraction: float) -> datetime:
    """Return the moment at which ``fraction`` of an authority's life is over."""
    return entry.created_at + (entry.not_after - entry.created_at) * fraction


def lacks_active(state: AuthorityState, kind: AuthorityKind, now: datetime) -> bool:
    """Tell whether nothing could be signed: no active authority, or one whose time is over."""
    active = state.one(kind, AuthorityStatus.ACTIVE)
    return active is None or now >= active.not_after


def is_due_to_prepare(
    state: AuthorityState, kind: AuthorityKind, settings: AuthoritySettings, now: datetime
) -> bool:
    """Tell whether a successor has to be made and published."""
    active = state.one(kind, AuthorityStatus.ACTIVE)
    if active is None or state.one(kind, AuthorityStatus.PREPARED) is not None:
        return False
    return now >= moment_in_life(active, settings.prepare_at)


def is_due_to_activate(
    state: AuthorityState,
    kind: AuthorityKind,
    settings: AuthoritySettings,
    now: datetime,
    acknowledged_sequence: int | None,
) -> bool:
    """Tell whether the prepared authority has to take over: in the last part of the active one's life.

    It waits until everyone is known to hold the bundle with it, but not beyond ``force_at``.
    """
    active = state.one(kind, AuthorityStatus.ACTIVE)
    prepared = state.one(kind, AuthorityStatus.PREPARED)
    if active is None or prepared is None or now < moment_in_life(active, settings.activate_at):
        return False
    return is_acknowledged(prepared, acknowledged_sequence) or is_due_by_force(active, settings, now)


def is_acknowledged(prepared: AuthorityEntry, acknowledged_sequence: int | None) -> bool:
    """Tell whether everyone holds a bundle with this authority (SPIFFE_Federation.md section 4.1)."""
    return acknowledged_sequence is not None and acknowledged_sequence >= prepared.published_sequence


def is_due_by_force(active: AuthorityEntry, settings: AuthoritySettings, now: datetime) -> bool:
    """Tell whether waiting longer for acknowledgements would be an outage for everyone."""
    return now >= moment_in_life(active, settings.force_at)


def removable(state: AuthorityState, now: datetime) -> tuple[AuthorityEntry, ...]:
    """Return the authorities that no longer vouch for anything: old ones, and prepared ones that expired unused."""
    return tuple(
        entry
        for entry in state.entries
        if (entry.status is AuthorityStatus.OLD and now >= entry.needed_until)
        or (entry.status is AuthorityStatus.PREPARED and now >= entry.not_after)
    )
