# SPDX-License-Identifier: Apache-2.0
"""Blocks as bytes: what servers send to agents, agents keep on disk, and workloads are told.

Only what enforcement needs is in them: whom, how, and until when.  Who blocked and why stays on the server.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec

from everyhop.anomaly.model import Block, BlockMode, Blocks, Subject
from everyhop.core.errors import InputError

MAX_BLOCKS: Final = 10_000
"""Blocks in force at once; a bound on what every agent, sidecar and workload holds."""

MAX_BYTES: Final = 16 * 1024 * 1024

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class BlockEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One block: ``subject`` as text, moments aware; ``until`` of None has no end."""

    subject: str
    since: _Moment
    until: _Moment | None = None
    mode: BlockMode = BlockMode.BLOCK


class BlocksDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All blocks of a moment, in the order of their subjects."""

    sequence: Annotated[int, msgspec.Meta(ge=0)]
    blocks: Annotated[list[BlockEntry], msgspec.Meta(max_length=MAX_BLOCKS)] = []


_decoder: Final = msgspec.json.Decoder(BlocksDocument)


def encode_blocks(blocks: Blocks) -> bytes:
    """Return blocks as JSON; the same blocks give the same bytes."""
    entries = [
        BlockEntry(subject=str(block.subject), since=block.since, until=block.until, mode=block.mode)
        for block in blocks.by_subject.values()
    ]
    entries.sort(key=lambda entry: entry.subject)
    return msgspec.json.encode(BlocksDocument(sequence=blocks.sequence, blocks=entries))


def decode_blocks(content: bytes, known: dict[BlockEntry, Block] | None = None) -> Blocks:
    """Read blocks; reason and author are empty.  Raises InputError for what is too large, malformed or twice there.

    Give the same ``known`` each time: of thousands, mostly one is new.
    """
    if len(content) > MAX_BYTES:
        raise InputError(f"blocks have at most {MAX_BYTES} bytes")
    try:
        document = _decoder.decode(content)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputError(f"the blocks cannot be read: {error}") from error
    return blocks_of(document, known)


def blocks_of(document: BlocksDocument, known: dict[BlockEntry, Block] | None = None) -> Blocks:
    """Return the blocks of a document that was decoded with others; raises InputError as :func:`decode_blocks`.

    What is ``known`` is not read again; afterwards it holds exactly what the document does.
    """
    held = {} if known is None else known
    found = {entry: held.get(entry) or _block(entry) for entry in document.blocks}
    blocks = Blocks.build(found.values(), sequence=document.sequence)
    if len(blocks.by_subject) != len(document.blocks):
        raise InputError("a subject is blocked twice")
    if known is not None:
        known.clear()
        known |= found
    return blocks


def _block(entry: BlockEntry) -> Block:
    return Block(
        subject=Subject.parse(entry.subject),
        mode=entry.mode,
        since=entry.since.astimezone(UTC),
        until=None if entry.until is None else entry.until.astimezone(UTC),
        reason="",
        by="",
    )
