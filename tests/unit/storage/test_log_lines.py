# SPDX-License-Identifier: Apache-2.0
"""Lines as they are stored, in pages with a bound."""

import pytest
from tests.support.exported import record

from everyhop.auditlog import encode_record
from everyhop.core.errors import InputError


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_pages_have_bounds(storage, limit):
    with pytest.raises(InputError):
        storage.log_lines.read(0, limit=limit, max_bytes=1)


def test_an_empty_log(storage):
    assert storage.log_lines.head() == 0
    assert storage.log_lines.read(0, limit=10, max_bytes=1000) == []


def test_lines_are_to_the_byte_what_was_appended(storage):
    batch = [record(n, path='/a\n"é') for n in range(1, 6)]
    storage.records.append(batch)
    assert storage.log_lines.head() == 5
    found = storage.log_lines.read(2, limit=10, max_bytes=10**6)
    assert found == [(n, encode_record(batch[n - 1])) for n in (3, 4, 5)]
    assert [n for n, _ in storage.log_lines.read(0, limit=2, max_bytes=10**6)] == [1, 2]


def test_a_page_is_bounded_in_bytes_and_never_empty_before_the_end(storage):
    storage.records.append([record(n) for n in range(1, 6)])
    size = len(storage.log_lines.read(0, limit=1, max_bytes=1)[0][1])
    assert [n for n, _ in storage.log_lines.read(0, limit=10, max_bytes=1)] == [1]
    assert [n for n, _ in storage.log_lines.read(0, limit=10, max_bytes=3 * size + 20)] == [1, 2, 3]
