# SPDX-License-Identifier: Apache-2.0
"""Cursors: never backwards, whoever moves them; work and cursor in one transaction."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from tests.support.identity import NOW

from everyhop.core.errors import InputError
from everyhop.storage import open_storage
from everyhop.storage.consumers import MAX_STATE, move


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", "a\u202eb"])
def test_names_that_are_refused(storage, name):
    with pytest.raises(InputError):
        storage.consumers.move(name, 1, at=NOW)
    with pytest.raises(InputError):
        storage.consumers.say(name, "state", at=NOW)


@pytest.mark.parametrize("position", [-1, 2**63])
def test_positions_that_are_refused(storage, position):
    with pytest.raises(InputError):
        storage.consumers.move("siem", position, at=NOW)


def test_a_state_has_a_bound(storage):
    with pytest.raises(InputError):
        storage.consumers.move("siem", 1, at=NOW, state="x" * (MAX_STATE + 1))
    assert storage.consumers.get("siem") is None


def test_a_cursor_never_moves_backwards(storage):
    cursors = storage.consumers
    assert cursors.position("siem") == 0
    assert cursors.move("siem", 5, at=NOW, state="five")
    assert not cursors.move("siem", 5, at=NOW, state="again")
    assert not cursors.move("siem", 3, at=NOW, state="three")
    found = cursors.get("siem")
    assert (found.position, found.state, found.moved_at) == (5, "five", NOW)
    later = NOW + timedelta(seconds=1)
    assert cursors.move("siem", 6, at=later)
    assert cursors.get("siem").state == "five"
    assert cursors.get("siem").moved_at == later


def test_many_writers_leave_the_furthest(storage):
    with ThreadPoolExecutor(6) as pool:
        moved = list(pool.map(lambda n: storage.consumers.move("siem", n, at=NOW), range(1, 40)))
    assert any(moved)
    assert storage.consumers.position("siem") == 39


def test_a_state_is_said_without_a_move(storage):
    storage.consumers.say("siem", "down", at=NOW)
    assert storage.consumers.position("siem") == 0
    storage.consumers.move("siem", 7, at=NOW)
    storage.consumers.say("siem", "up", at=NOW)
    assert (storage.consumers.position("siem"), storage.consumers.get("siem").state) == (7, "up")


def test_consumers_are_apart_and_survive_the_process(storage, engine_place):
    storage.consumers.move("a", 1, at=NOW)
    storage.consumers.move("b", 2, at=NOW)
    assert storage.consumers.forget("a")
    assert not storage.consumers.forget("a")
    storage.close()
    again = open_storage(engine_place)
    assert {name: p.position for name, p in again.consumers.all().items()} == {"b": 2}
    again.close()


def test_work_and_cursor_are_one_transaction(storage):
    class CrashError(Exception):
        pass

    with pytest.raises(CrashError), storage.database.writing() as connection:
        assert move(connection, "detect", 9, at=NOW, state="window")
        raise CrashError
    assert storage.consumers.get("detect") is None
