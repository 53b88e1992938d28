# SPDX-License-Identifier: Apache-2.0
"""Seals: whatever is changed about one, or about its records, it does not hold."""

import hashlib
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given, strategies as st
from tests.support.identity import NOW, TestCa
from tests.support.seals import record, seal_key

from everyhop.auditlog import decode_record, encode_record
from everyhop.auditlog.sealing import (
    MAX_SEALED,
    SealError,
    agent_path,
    check_records,
    check_signature,
    seal_digest,
    seal_records,
    sealed_hash,
    signed_bytes,
)
from everyhop.core.errors import InputError

RECORDS = [record(seq) for seq in range(5, 9)]


@pytest.fixture(scope="module")
def key():
    return seal_key(TestCa())


@pytest.fixture(scope="module")
def seal(key):
    leaves = [sealed_hash(r) for r in RECORDS]
    return seal_records("i1", 5, leaves, previous=b"p" * 32, now=NOW, key=key)


@pytest.mark.parametrize(
    "changed",
    [
        {"producer": "i2"},
        {"first": 4},
        {"last": 9},
        {"digest": b"d" * 32},
        {"previous": b""},
        {"previous": b"q" * 32},
        {"time": NOW + timedelta(microseconds=1)},
        {"signature": bytes(64)},
        {"producer": "i1\n5"},
        {"producer": ""},
    ],
)
def test_a_changed_seal_does_not_hold(seal, key, changed):
    with pytest.raises(SealError):
        check_signature(msgspec.structs.replace(seal, **changed), key.chain[0])


def test_another_key_does_not_hold(seal, key):
    other = seal_key(TestCa())
    with pytest.raises(SealError, match="not the one"):
        check_signature(seal, other.chain[0])
    named = msgspec.structs.replace(seal, certificate=other.thumbprint)
    with pytest.raises(SealError, match="not its signer's"):
        check_signature(named, other.chain[0])


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (RECORDS[:-1], "numbers"),
        (RECORDS[1:], "numbers"),
        ([], "numbers"),
        ([*RECORDS, record(9)], "numbers"),
        (RECORDS[::-1], "numbers"),
        ([*RECORDS[:-1], record(9)], "numbers"),
        ([*RECORDS[:-1], record(8, "i2")], "numbers"),
        ([*RECORDS[:-1], record(8, path="/other")], "digest"),
        ([*RECORDS[:-1], record(8, id="x")], "digest"),
        ([record(seq) for seq in range(5, 5 + MAX_SEALED + 1)], "numbers"),
    ],
)
def test_other_records_are_not_what_was_sealed(seal, records, reason):
    with pytest.raises(SealError) as refused:
        check_records(seal, records)
    assert refused.value.reason == reason


@pytest.mark.parametrize("count", [0, MAX_SEALED + 1])
def test_no_seal_is_over_nothing_or_too_much(key, count):
    with pytest.raises(SealError):
        seal_records("i1", 1, [b"h" * 32] * count, previous=b"", now=NOW, key=key)


@pytest.mark.parametrize("producer", ["", "a b", "a\nb", "é", "x" * 129])
def test_a_name_that_could_be_two_names_is_not_sealed(key, producer):
    with pytest.raises(SealError):
        seal_records(producer, 1, [b"h" * 32], previous=b"", now=NOW, key=key)


@pytest.mark.parametrize("agent", ["", ".", "..", ".a", "a/b", "a b", "é", "a" * 129, "a\n"])
def test_a_name_that_has_no_place_in_a_path_is_no_agents(agent):
    with pytest.raises(InputError):
        agent_path(agent)


def test_what_was_sealed_holds(seal, key):
    check_signature(seal, key.chain[0])
    leaves = check_records(seal, RECORDS)
    assert seal.marks == b"".join(leaf[:8] for leaf in leaves)
    assert (seal.first, seal.last) == (5, 8)
    assert seal_digest(seal) == hashlib.sha256(signed_bytes(seal) + seal.signature).digest()
    assert msgspec.json.decode(msgspec.json.encode(seal), type=type(seal)) == seal
    assert agent_path("host.example-agent") == "/everyhop/agent/host.example-agent"


@given(
    path=st.text(max_size=50),
    latency=st.floats(min_value=0, max_value=1e9),
    detail=st.dictionaries(
        st.text(min_size=1, max_size=10),
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63)
        | st.floats(allow_nan=False)
        | st.text(max_size=20),
        max_size=5,
    ),
)
def test_the_hash_is_the_same_on_both_ends_of_the_wire(path, latency, detail):
    made = record(1, path=path, latency_ms=latency, detail=detail)
    assert sealed_hash(decode_record(encode_record(made))) == sealed_hash(made)
