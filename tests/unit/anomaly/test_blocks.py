# SPDX-License-Identifier: Apache-2.0
"""Blocks as values: who is meant, which is stronger, what travels, who is found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from everyhop.anomaly.blocks_codec import MAX_BLOCKS, MAX_BYTES, decode_blocks, encode_blocks
from everyhop.anomaly.looking import BlockedError, find_block, is_quarantined, refuse_blocked
from everyhop.anomaly.model import Block, BlockMode, Blocks, Subject, SubjectKind
from everyhop.core.errors import InputError

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ORDERS = "spiffe://shop.example/service/orders"


def block(text: str, *, seconds: float | None = 60, mode: BlockMode = BlockMode.BLOCK) -> Block:
    return Block(
        subject=Subject.parse(text),
        mode=mode,
        since=NOW,
        until=None if seconds is None else NOW + timedelta(seconds=seconds),
        reason="why",
        by="uid:1",
    )


def blocks(*found: Block) -> Blocks:
    return Blocks.build(found, sequence=7)


# -- what is refused to be read


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"sequence": -1, "blocks": []}',
        b'{"sequence": 1, "blocks": [], "more": 1}',
        b'{"sequence": 1, "blocks": [{"subject": "nobody", "since": "2026-06-01T12:00:00Z"}]}',
        b'{"sequence": 1, "blocks": [{"subject": "address:1.2.3.4.5", "since": "2026-06-01T12:00:00Z"}]}',
        b'{"sequence": 1, "blocks": [{"subject": "user:a", "since": "2026-06-01T12:00:00"}]}',
        b'{"sequence": 1, "blocks": [{"subject": "user:a", "since": "2026-06-01T12:00:00Z", "mode": "x"}]}',
        (
            b'{"sequence": 1, "blocks": ['
            b'{"subject": "address:2001:db8::1", "since": "2026-06-01T12:00:00Z"},'
            b'{"subject": "address:2001:db8::2", "since": "2026-06-01T12:00:00Z"}]}'
        ),
        b" " * (MAX_BYTES + 1),
    ],
)
def test_what_is_malformed_is_refused(content):
    with pytest.raises(InputError):
        decode_blocks(content)


def test_more_than_anybody_may_block_is_refused():
    entry = {"subject": "user:a", "since": "2026-06-01T12:00:00Z"}
    with pytest.raises(InputError):
        decode_blocks(msgspec.json.encode({"sequence": 1, "blocks": [entry] * (MAX_BLOCKS + 1)}))


def test_what_travels_is_whom_how_and_until_when_and_not_why():
    found = blocks(
        block(f"identity:{ORDERS}", mode=BlockMode.QUARANTINE, seconds=None),
        block("address:2001:db8::7"),
        block("user:zoë@shop.example"),
    )
    encoded = encode_blocks(found)
    assert b"why" not in encoded
    assert b"uid:1" not in encoded
    read = decode_blocks(encoded)
    assert read.sequence == 7
    assert encode_blocks(read) == encoded
    for subject, held in found.by_subject.items():
        other = read.by_subject[subject]
        assert (other.mode, other.since, other.until) == (held.mode, held.since, held.until)


# -- which is stronger


def test_nobody_shortens_a_block_by_blocking_again():
    long, short = block("user:a", seconds=3600), block("user:a", seconds=60)
    assert long.joined(short).until == long.until
    assert short.joined(long).until == long.until
    assert block("user:a", seconds=None).joined(long).until is None
    assert long.joined(block("user:a", seconds=None)).until is None


def test_a_block_does_not_lift_a_quarantine():
    quarantine = block(f"identity:{ORDERS}", mode=BlockMode.QUARANTINE)
    longer = block(f"identity:{ORDERS}", seconds=3600)
    joined = quarantine.joined(longer)
    assert joined.mode is BlockMode.QUARANTINE
    assert joined.until == longer.until
    assert longer.joined(quarantine).mode is BlockMode.QUARANTINE
    assert longer.joined(quarantine).until == longer.until


# -- who is found


def test_whoever_is_not_blocked_is_nobody_found():
    held = blocks(block("user:a"), block("address:203.0.113.7"), block(f"identity:{ORDERS}"))
    assert (
        find_block(held, NOW, identity=ORDERS + "2", subject="b", api_key="a", address="203.0.113.8") is None
    )
    assert find_block(held, NOW, address="not an address", subject="", identity="orders") is None
    assert find_block(held, NOW + timedelta(seconds=60), subject="a") is None  # its time is over
    assert find_block(blocks(), NOW, subject="a") is None
    assert find_block(held, NOW) is None


@pytest.mark.parametrize(
    ("text", "acting"),
    [
        (f"identity:{ORDERS}", {"identity": ORDERS}),
        (f"identity:{ORDERS}", {"subject": ORDERS}),
        ("user:a", {"subject": "a"}),
        ("api-key:k7Qm2xPa", {"api_key": "k7Qm2xPa"}),
        ("api-key:k7Qm2xPa", {"subject": "apikey:k7Qm2xPa"}),
        ("address:203.0.113.7", {"address": "203.0.113.7"}),
        ("address:203.0.113.7", {"address": "::ffff:203.0.113.7"}),
        ("address:2001:db8::1", {"address": "2001:db8::ffff:1"}),
    ],
)
def test_whoever_is_blocked_is_refused_with_the_time_left(text, acting):
    with pytest.raises(BlockedError) as refused:
        refuse_blocked(blocks(block(text)), NOW, **acting)
    assert str(refused.value.block.subject) == str(Subject.parse(text))
    assert 60 <= refused.value.retry_after <= 61


def test_only_a_quarantine_takes_the_identity():
    assert not is_quarantined(blocks(block(f"identity:{ORDERS}")), NOW, ORDERS)
    held = blocks(block(f"identity:{ORDERS}", mode=BlockMode.QUARANTINE))
    assert is_quarantined(held, NOW, ORDERS)
    assert not is_quarantined(held, NOW + timedelta(minutes=2), ORDERS)


def test_a_subject_of_a_user_is_not_one_of_a_key():
    held = blocks(block("user:k7Qm2xPa"))
    assert find_block(held, NOW, api_key="k7Qm2xPa") is None
    assert Subject.of(SubjectKind.USER, "a") != Subject.of(SubjectKind.API_KEY, "a")
