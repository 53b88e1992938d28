# SPDX-License-Identifier: Apache-2.0
"""What both kinds of signature share: the sender that is found, the reasons for refusing, the bounds of time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from everyhop.core.errors import InputError, SignatureError
from everyhop.spiffe.ids import SpiffeId

DEFAULT_LIFETIME: Final = timedelta(minutes=5)
MAX_LIFETIME: Final = timedelta(hours=1)
MAX_NONCE: Final = 128
MAX_AUDIENCE: Final = 2048
_EXPIRY_SKEW: Final = 5
_START_SKEW: Final = 30
_LATEST: Final = 253402300799


class Reason(StrEnum):
    """Why a signed message is refused; stable."""

    MALFORMED = "MALFORMED"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    SENDER_UNTRUSTED = "SENDER_UNTRUSTED"
    SENDER_NOT_ALLOWED = "SENDER_NOT_ALLOWED"
    NOT_COVERED = "NOT_COVERED"
    AUDIENCE_MISMATCH = "AUDIENCE_MISMATCH"
    EXPIRED = "EXPIRED"
    NOT_YET_VALID = "NOT_YET_VALID"
    REPLAYED = "REPLAYED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who signed, proved.  ``x5t`` names the certificate, ``nonce`` this one signature; times are seconds."""

    spiffe_id: SpiffeId
    x5t: str
    nonce: str
    issued_at: int
    expires_at: int


def refuse(reason: Reason, message: str) -> SignatureError:
    """Return the error for a refused message."""
    return SignatureError(reason, message)


def window(now: datetime, lifetime: timedelta, not_after: datetime) -> tuple[int, int]:
    """Return when a signature that is made now begins and ends: never later than the certificate.

    Raises InputError for a lifetime that no verifier takes, or a certificate that is over.
    """
    if not timedelta(0) < lifetime <= MAX_LIFETIME:
        raise InputError(f"a signature lives for at most {MAX_LIFETIME}")
    begins = int(now.timestamp())
    ends = min(begins + int(lifetime.total_seconds()), int(not_after.timestamp()))
    if ends <= begins:
        raise InputError("the identity to sign with is over")
    return begins, ends


def check_window(issued_at: object, expires_at: object, now: datetime) -> tuple[int, int]:
    """Return both times when they are integers, near enough together, and ``now`` lies between them."""
    if type(issued_at) is not int or type(expires_at) is not int:
        raise refuse(Reason.MALFORMED, "the times of the signature are not integers")
    if not 0 <= issued_at < expires_at <= _LATEST or expires_at - issued_at > MAX_LIFETIME.total_seconds():
        raise refuse(Reason.MALFORMED, "the times of the signature are out of range")
    at = now.timestamp()
    if at >= expires_at + _EXPIRY_SKEW:
        raise refuse(Reason.EXPIRED, "the signature is over")
    if at < issued_at - _START_SKEW:
        raise refuse(Reason.NOT_YET_VALID, "the signature is made in the future")
    return issued_at, expires_at


def check_name(value: object, what: str, most: int) -> str:
    """Return text of a bounded length without control characters."""
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
        raise refuse(Reason.MALFORMED, f"{what} is missing, empty, too long or not printable")
    return value
