# SPDX-License-Identifier: Apache-2.0
"""Places that differ: memory is bounded, and three in a row that are three things stay three things."""

from everyhop.auditlog._differences import MAX_REMEMBERED, Differences
from everyhop.auditlog.verdict import Fault
from everyhop.tlog import leaf_hash

LINES = [str(i).encode() for i in range(8)]
LEAVES = [leaf_hash(line) for line in LINES]


def test_however_much_differs_a_bounded_part_is_remembered_and_all_of_it_counted():
    found = Differences()
    for index in range(MAX_REMEMBERED + 10):
        found.add(2 * index, b"x", bytes(32))
        found.add(2 * index + 1, None, bytes(32))
        found.columns(index, "rule")
    missing, columns, altered = found.findings(10**9)
    assert [f.count for f in (missing, columns, altered)] == [MAX_REMEMBERED + 10] * 3
    assert (missing.fault, altered.fault) == (Fault.MISSING, Fault.ALTERED)
    assert (missing.last, altered.last) == (None, None)


def test_neighbours_that_are_altered_are_not_taken_for_moved():
    found = Differences()
    found.add(3, b"x", LEAVES[3])
    found.add(4, b"y", LEAVES[4])
    (altered,) = found.findings(8)
    assert (altered.fault, altered.index, altered.count) == (Fault.ALTERED, 3, 2)


def test_a_ring_of_three_is_no_record_that_was_taken_out():
    found = Differences()
    for place, line in ((3, 4), (4, 5), (5, 3)):
        found.add(place, LINES[line], LEAVES[place])
    (reordered,) = found.findings(8)
    assert (reordered.fault, reordered.index, reordered.count) == (Fault.REORDERED, 3, 3)


def test_nothing_differs():
    assert Differences().findings(8) == []
