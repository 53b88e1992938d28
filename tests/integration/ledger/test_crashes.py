# SPDX-License-Identifier: Apache-2.0
"""Writers that are killed, and databases that crash: what was confirmed is there, once, in an unbroken sequence."""

import contextlib
import random

import pytest
from tests.support.ledger_writers import Writer, check_log

from everyhop.storage import open_storage


@pytest.mark.parametrize(
    "kills", [pytest.param(4, id="short"), pytest.param(20, marks=pytest.mark.long, id="twenty")]
)
def test_writers_that_are_killed_in_the_middle(place, kills):
    random_kills = random.Random(5)
    writers = [Writer(place, f"w{number}", batch=20) for number in range(3)]
    for number in range(kills):
        slot = number % len(writers)
        victim = writers[slot]
        victim.wait_confirmed(random_kills.randint(1, 6))
        last = victim.kill()
        # As an agent that starts anew: it goes on behind what was confirmed to it, and repeats what it does not know of.
        writers[slot] = Writer(place, victim.producer, first=last + 1, batch=20)
    for writer in writers:
        writer.wait_confirmed(1)
    confirmed = {writer.producer: writer.kill() for writer in writers}
    with contextlib.closing(open_storage(place)) as storage:
        assert check_log(storage, confirmed) >= 20 * kills
        storage.records.append([])


@pytest.mark.parametrize(
    "crashes", [pytest.param(1, id="short"), pytest.param(4, marks=pytest.mark.long, id="four")]
)
def test_a_postgresql_that_crashes_under_its_writers(server, crashes):
    place = server.url(server.new_database())
    open_storage(place).close()
    writers = [Writer(place, f"w{number}", batch=20) for number in range(3)]
    for _ in range(crashes):
        for writer in writers:
            writer.wait_confirmed(8)
        server.stop("immediate")
        server.start()
    for writer in writers:
        writer.wait_confirmed(8)
    confirmed = {writer.producer: writer.kill() for writer in writers}
    with contextlib.closing(open_storage(place)) as storage:
        assert check_log(storage, confirmed) >= 3 * 8 * 20 * (crashes + 1)
