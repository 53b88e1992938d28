# SPDX-License-Identifier: Apache-2.0
"""A node names nobody without the server, asks in batches, and forgets when it is told so."""

import pytest
from tests.support.identity import NOW

from everyhop.auditlog import Kind, Point, Record
from everyhop.control.pseudonym_memory import LIFE_SECONDS, MAX_ASKED, PseudonymMemory
from everyhop.core.errors import Conflict, Unavailable


class Server:
    def __init__(self):
        self.asked = []
        self.era = "a"
        self.is_away = False
        self.stored = []

    async def pseudonyms(self, wanted):
        if self.is_away:
            raise Unavailable("away")
        self.asked.append(list(wanted))
        return [f"~user.{value}-{self.era}" for _, value in wanted]

    async def take(self, records):
        if any(not r.detail["user"].endswith(self.era) for r in records):
            raise Conflict("unknown")
        self.stored += records


class Time:
    now = 0.0

    def __call__(self):
        return self.now


def record(user):
    return Record(
        id="r",
        seq=1,
        producer="p",
        time=NOW,
        kind=Kind.DECISION,
        point=Point.INGRESS,
        detail={"user": user},
    )


async def test_nothing_is_sent_while_the_server_names_nobody():
    server = Server()
    memory = PseudonymMemory(server)
    server.is_away = True
    with pytest.raises(Unavailable):
        await memory.send([record("alice")], server.take)
    assert not server.stored


async def test_each_name_is_asked_for_once_and_in_batches():
    server = Server()
    memory = PseudonymMemory(server)
    await memory.send([record(f"u{n}") for n in range(MAX_ASKED + 1)] * 2, server.take)
    assert [len(batch) for batch in server.asked] == [MAX_ASKED, 1]
    await memory.send([record("u7")], server.take)
    assert len(server.asked) == 2
    assert {r.detail["user"] for r in server.stored} >= {"~user.u7-a"}


async def test_a_name_is_not_remembered_for_long():
    server, time = Server(), Time()
    memory = PseudonymMemory(server, monotonic=time)
    await memory.apply([record("alice")])
    time.now = LIFE_SECONDS + 1
    await memory.apply([record("alice")])
    assert len(server.asked) == 2


async def test_who_was_forgotten_gets_the_new_name_at_once():
    server = Server()
    memory = PseudonymMemory(server)
    await memory.send([record("alice")], server.take)
    server.era = "b"
    await memory.send([record("alice")], server.take)
    assert [r.detail["user"] for r in server.stored] == ["~user.alice-a", "~user.alice-b"]


async def test_records_stay_where_they_are_when_the_server_goes_on_refusing():
    server = Server()

    async def refuse(records):
        raise Conflict("no")

    with pytest.raises(Unavailable):
        await PseudonymMemory(server).send([record("alice")], refuse)


async def test_records_of_nobody_ask_nothing():
    server = Server()
    batch = [record("apikey:abcdefgh")]
    assert await PseudonymMemory(server).apply(batch) == batch
    assert not server.asked
