# SPDX-License-Identifier: Apache-2.0
"""When a signing key is due for its next step.  Pure: state, settings and time in, answers out."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from everyhop.issuing.model import IssuingSettings, IssuingState, KeyStatus, SigningKey
from everyhop.tokens.keyset import MAX_KEYS

MAX_PUBLISHED: Final = MAX_KEYS - 2  # room for the one that an emergency makes, and for its successor
PRUNE_EVERY: Final = timedelta(seconds=60)


def lacks_active(state: IssuingState, settings: IssuingSettings) -> bool:
    """Tell whether nothing could be signed at all: a first start."""
    return state.signing(settings.algorithm) is None


def is_due_to_prepare(state: IssuingState, settings: IssuingSettings, now: datetime) -> bool:
    """Tell whether a successor has to be made and published: by age, or because another algorithm was chosen."""
    if state.one(settings.algorithm, KeyStatus.PREPARED) is not None or is_full(state):
        return False
    active = state.one(settings.algorithm, KeyStatus.ACTIVE)
    if active is None:
        return not lacks_active(state, settings)
    return now >= (active.activated_at or active.created_at) + settings.rotate_every


def is_full(state: IssuingState) -> bool:
    """Tell whether so many keys are published that readers would refuse a document with more."""
    return len(state.keys) >= MAX_PUBLISHED


def is_waited(prepared: SigningKey, settings: IssuingSettings, now: datetime) -> bool:
    """Tell whether every reader of the JWKS that minds ``max-age`` has fetched the prepared key."""
    return now >= prepared.created_at + 2 * settings.max_age


def is_acknowledged(prepared: SigningKey, acknowledged_sequence: int | None) -> bool:
    """Tell whether every agent holds the prepared key."""
    return acknowledged_sequence is not None and acknowledged_sequence >= prepared.published_sequence


def is_due_to_activate(
    state: IssuingState, settings: IssuingSettings, now: datetime, acknowledged_sequence: int | None
) -> bool:
    """Tell whether the prepared key takes over: as soon as nobody would refuse what it signs.

    There is no force after some time: an active signing key does not end, so waiting costs nothing but its age.
    """
    prepared = state.one(settings.algorithm, KeyStatus.PREPARED)
    return (
        prepared is not None
        and is_waited(prepared, settings, now)
        and is_acknowledged(prepared, acknowledged_sequence)
    )


def needed_until(retained: SigningKey, settings: IssuingSettings) -> datetime:
    """Return when nothing that a retained key signed can be alive and no reader can hold a JWKS without its successor."""
    retired_at = retained.retired_at or retained.created_at
    return retired_at + settings.longest_ttl + settings.skew + settings.max_age


def removable(state: IssuingState, settings: IssuingSettings, now: datetime) -> tuple[SigningKey, ...]:
    """Return the keys that nothing depends on: retained ones past their use, prepared ones of a former algorithm."""
    return tuple(
        key
        for key in state.keys
        if (key.status is KeyStatus.RETAINED and now >= needed_until(key, settings))
        or (key.status is KeyStatus.PREPARED and key.algorithm is not settings.algorithm)
    )


def is_due_to_prune(state: IssuingState, now: datetime) -> bool:
    """Tell whether revocations have been over for a while; they go together, because each change is told to all."""
    return any(revocation.expires_at + PRUNE_EVERY <= now for revocation in state.revocations)
