# SPDX-License-Identifier: Apache-2.0
"""Whether somebody who acts is blocked: the one question that every enforcement point asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.anomaly.model import Block, BlockMode, Blocks, Subject, SubjectKind
from everyhop.core.errors import AccessDenied, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

API_KEY_SUBJECT: Final = "apikey:"
"""Before the public part of an API key, where a token has it as its subject."""

_SPIFFE: Final = "spiffe://"


class BlockedError(AccessDenied):
    """Who acts is blocked; ``block`` says until when.  HTTP status 429."""

    code = "BLOCKED"

    def __init__(self, block: Block, retry_after: int) -> None:
        """``retry_after`` is in seconds."""
        super().__init__(f"blocked: {block.subject}")
        self.block = block
        self.retry_after = retry_after


def find_block(
    blocks: Blocks,
    now: datetime,
    *,
    identity: str | None = None,
    subject: str | None = None,
    api_key: str | None = None,
    address: str | None = None,
) -> Block | None:
    """Return the block in force of one of those who act, the identity first; what is no subject is nobody blocked.

    ``subject`` is that of a verified token: a user, ``apikey:LOOKUP`` or a SPIFFE ID.  Costs nothing while nobody is
    blocked.
    """
    if not blocks.by_subject:
        return None
    return blocks.find(_acting(identity, subject, api_key, address), now)


def refuse_blocked(
    blocks: Blocks,
    now: datetime,
    *,
    identity: str | None = None,
    subject: str | None = None,
    api_key: str | None = None,
    address: str | None = None,
) -> None:
    """Raise BlockedError when one of those who act is blocked."""
    block = find_block(blocks, now, identity=identity, subject=subject, api_key=api_key, address=address)
    if block is not None:
        raise BlockedError(block, block.seconds_left(now))


def is_quarantined(blocks: Blocks, now: datetime, spiffe_id: str) -> bool:
    """Tell whether nothing is to be issued to an identity."""
    block = find_block(blocks, now, identity=spiffe_id)
    return block is not None and block.mode is BlockMode.QUARANTINE


def _acting(
    identity: str | None, subject: str | None, api_key: str | None, address: str | None
) -> Iterator[Subject]:
    stated = [
        (SubjectKind.IDENTITY, identity),
        (SubjectKind.USER, subject),
        (SubjectKind.API_KEY, api_key),
        (SubjectKind.ADDRESS, address),
    ]
    if subject is not None and subject.startswith(API_KEY_SUBJECT):
        stated.append((SubjectKind.API_KEY, subject.removeprefix(API_KEY_SUBJECT)))
    if subject is not None and subject.startswith(_SPIFFE):
        stated.append((SubjectKind.IDENTITY, subject))
    for kind, value in stated:
        if value is None:
            continue
        try:
            yield Subject.of(kind, value)
        except InputError:
            continue
