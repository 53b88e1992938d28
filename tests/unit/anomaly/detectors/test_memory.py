# SPDX-License-Identifier: Apache-2.0
"""The memory of detectors: bounded, and the same after a restart."""

from __future__ import annotations

import msgspec

from everyhop.anomaly.detectors._memory import MAX_KEY, Memory


class Value(msgspec.Struct):
    count: int = 0


def filled(*keys, limit=3):
    memory = Memory(Value, limit=limit)
    for key in keys:
        memory.touch(key).count += 1
    return memory


def test_the_key_that_was_touched_longest_ago_leaves():
    memory = filled("a", "b", "c", "a", "d")
    assert list(memory.state()) == ["c", "a", "d"]
    assert memory.get("b") is None
    assert memory.get("a").count == 2
    assert len(memory) == 3


def test_what_has_not_changed_is_not_encoded_again():
    memory = filled("a", "b")
    before = memory.state()
    memory.touch("b").count = 9
    after = memory.state()
    assert after["a"] is before["a"]
    assert after["b"] != before["b"]


def test_a_restart_goes_on_and_leaves_out_what_cannot_be_read():
    memory = Memory(Value, limit=9)
    memory.restore(filled("a", "b").state() | {"c": b"\xc1", "d": b""})
    memory.touch("a").count += 1
    assert {key: memory.get(key).count for key in memory.state()} == {"b": 1, "a": 2}


def test_a_state_of_a_greater_memory_keeps_the_newest():
    memory = Memory(Value, limit=2)
    memory.restore(filled("a", "b", "c").state())
    assert list(memory.state()) == ["b", "c"]


def test_keys_are_bounded_and_fit_for_every_store():
    memory = filled("x" * 10_000, "a\0b\n")
    assert [len(key) for key in memory.state()] == [MAX_KEY, 10]
    assert all(key.isprintable() for key in memory.state())
    assert memory.get("a\0b\n").count == 1
