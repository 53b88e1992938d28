# SPDX-License-Identifier: Apache-2.0
"""What lets more in is confirmed, held back or refused; who said what is recorded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from control_plane import POLICY, ControlUnderTest, TextSource

from everyhop.auditlog import Kind, RecordFilter
from everyhop.control.policy_changes import HeldError
from everyhop.control.proposals import Actor, ChangeRules, Origin
from everyhop.control.service import ControlPlane
from everyhop.core.errors import AccessDenied, Conflict, NotFound, PolicyError
from everyhop.policy import parse_policy

WIDER = POLICY.replace(
    "from: storefront, to: orders, operations", "from: [storefront, orders], to: orders, operations"
)
NARROWER = POLICY.partition("allow:")[0]
ALICE, BOB = Actor(origin=Origin.COMMAND, uid=1000), Actor(origin=Origin.COMMAND, uid=1001)
FILE = Actor(origin=Origin.FILE, uid=1000)


def files(text: str) -> dict[str, bytes]:
    return {"shop.yaml": text.encode()}


def hash_of(text: str) -> str:
    return parse_policy(files(text)).hash


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    made: list[ControlUnderTest] = []

    async def start(text: str = POLICY, **rules: bool) -> ControlUnderTest:
        under_test = ControlUnderTest(tmp_path, ChangeRules(**rules))
        made.append(under_test)
        await under_test.control.start(TextSource(text))
        return under_test

    yield start
    for one in made:
        one.close()


def records(under_test: ControlUnderTest) -> list[tuple[Any, ...]]:
    page = under_test.storage.records.query(RecordFilter(kind=Kind.POLICY), limit=100)
    return [(r.operation, r.caller, r.decision, r.reason, r.snapshot) for r in page.records[::-1]]


# -- a command


@pytest.mark.parametrize(
    "accept", [None, "", "0" * 64, hash_of(POLICY), hash_of(WIDER)[:15], hash_of(WIDER) + "0"]
)
async def test_what_widens_is_refused_unless_exactly_it_was_confirmed(make, accept):
    under_test = await make()
    before = under_test.control.snapshot.hash
    with pytest.raises(Conflict):
        await under_test.control.apply_policy(files(WIDER), source="s", actor=ALICE, accept=accept)
    assert under_test.control.snapshot.hash == before
    operation, caller, decision, reason, snapshot = records(under_test)[-1]
    assert (operation, caller, decision, snapshot) == ("apply", "uid:1000", "deny", hash_of(WIDER))
    assert reason == ("not-confirmed" if accept is None else "another-hash")


async def test_what_was_confirmed_against_another_policy_is_refused(make):
    under_test = await make()
    with pytest.raises(Conflict, match="plan it again"):
        try:
            await under_test.control.apply_policy(
                files(WIDER), source="s", actor=ALICE, accept=hash_of(WIDER), base="0" * 64
            )
        except Conflict as error:
            raise Conflict(f"{error.message}; {error.hint}") from error


async def test_a_candidate_that_fails_its_own_tests_changes_nothing_and_is_recorded(make):
    under_test = await make()
    bad = WIDER.replace("expect: allow", "expect: deny")
    for call in (
        under_test.control.plan_policy(files(bad)),
        under_test.control.apply_policy(files(bad), source="s", actor=ALICE, accept=hash_of(bad)),
    ):
        with pytest.raises(PolicyError):
            await call
    assert records(under_test)[-1][:4] == ("reject", "uid:1000", "deny", "POLICY_INVALID")
    assert under_test.control.snapshot.hash == hash_of(POLICY)


async def test_what_was_confirmed_is_in_force_with_who_and_how_much(make):
    under_test = await make()
    await under_test.control.apply_policy(files(WIDER), source="s", actor=ALICE, accept=hash_of(WIDER))
    assert under_test.control.snapshot.hash == hash_of(WIDER)
    page = under_test.storage.records.query(RecordFilter(kind=Kind.POLICY), limit=1)
    (record,) = page.records
    assert (record.operation, record.caller, record.snapshot) == ("apply", "uid:1000", hash_of(WIDER))
    assert record.detail["previous"] == hash_of(POLICY)
    assert (record.detail["gained"], record.detail["lost"]) == (1, 0)


async def test_what_only_closes_never_waits(make):
    under_test = await make(two_person=True, confirm_wider=True)
    await under_test.control.apply_policy(files(NARROWER), source="s", actor=ALICE)
    assert under_test.control.snapshot.hash == hash_of(NARROWER)


# -- the watched file


async def test_by_default_a_file_is_believed(make):
    under_test = await make()
    await under_test.control.apply_policy(files(WIDER), source="f", actor=FILE)
    assert under_test.control.snapshot.hash == hash_of(WIDER)
    assert records(under_test)[-1][1] == "file:uid:1000"


async def test_a_wider_file_waits_until_it_is_approved(make):
    under_test = await make(confirm_wider=True)
    control = under_test.control
    for _ in range(2):  # looked at again, it is the same proposal
        with pytest.raises(HeldError):
            await control.apply_policy(files(WIDER), source="f", actor=FILE)
    assert control.snapshot.hash == hash_of(POLICY)
    pending = control.status()["pending_policy"]
    assert (pending["snapshot"], pending["proposer"]) == (hash_of(WIDER), "file:uid:1000")
    assert control.rejected is None
    for wrong in (hash_of(POLICY), hash_of(WIDER)[:8]):
        with pytest.raises(Conflict):
            await control.approve_policy(wrong, actor=ALICE)
    await control.approve_policy(hash_of(WIDER), actor=ALICE)
    assert control.snapshot.hash == hash_of(WIDER)
    assert control.status()["pending_policy"] is None
    assert [r[:3] for r in records(under_test)] == [
        ("apply", "file:uid:1000", None),
        ("propose", "file:uid:1000", None),
        ("approve", "uid:1000", "deny"),
        ("approve", "uid:1000", "deny"),
        ("apply", "uid:1000", None),
    ]


async def test_a_file_that_says_again_what_is_in_force_withdraws_what_waits(make):
    under_test = await make(confirm_wider=True)
    with pytest.raises(HeldError):
        await under_test.control.apply_policy(files(WIDER), source="f", actor=FILE)
    await under_test.control.apply_policy(files(POLICY), source="f", actor=FILE)
    assert under_test.control.status()["pending_policy"] is None
    with pytest.raises(NotFound):
        await under_test.control.approve_policy(hash_of(WIDER), actor=ALICE)
    assert records(under_test)[-1][0] == "supersede"


async def test_what_waits_survives_a_restart_and_the_file_does_not_slip_in(make):
    under_test = await make(confirm_wider=True)
    with pytest.raises(HeldError):
        await under_test.control.apply_policy(files(WIDER), source="f", actor=FILE)
    again = ControlPlane(under_test.control._p)  # another process on the same database
    await again.start(TextSource(WIDER))
    assert again.snapshot.hash == hash_of(POLICY)
    assert again.status()["pending_policy"]["snapshot"] == hash_of(WIDER)
    assert again.feed.truth is not None  # agents are served all the same


# -- two people


async def test_the_proposer_cannot_approve(make):
    under_test = await make(two_person=True)
    control = under_test.control
    with pytest.raises(Conflict, match="nobody confirmed"):
        await control.apply_policy(files(WIDER), source="s", actor=ALICE)
    with pytest.raises(HeldError):
        await control.apply_policy(files(WIDER), source="s", actor=ALICE, accept=hash_of(WIDER))
    for actor in (ALICE, Actor(origin=Origin.COMMAND, uid=None)):
        with pytest.raises(AccessDenied):
            await control.approve_policy(hash_of(WIDER), actor=actor)
        assert records(under_test)[-1][2:4] == ("deny", "same-person")
    assert control.snapshot.hash == hash_of(POLICY)
    await control.approve_policy(hash_of(WIDER), actor=BOB)
    assert control.snapshot.hash == hash_of(WIDER)
    (record,) = under_test.storage.records.query(RecordFilter(kind=Kind.POLICY), limit=1).records
    assert (record.detail["proposer"], record.detail["approver"]) == ("uid:1000", "uid:1001")


async def test_a_file_of_the_approver_needs_somebody_else(make):
    under_test = await make(two_person=True)
    with pytest.raises(HeldError):
        await under_test.control.apply_policy(files(WIDER), source="f", actor=FILE)
    with pytest.raises(AccessDenied):
        await under_test.control.approve_policy(hash_of(WIDER), actor=ALICE)


async def test_what_waits_cannot_be_approved_once_another_policy_is_in_force(make):
    under_test = await make(two_person=True)
    control = under_test.control
    with pytest.raises(HeldError):
        await control.apply_policy(files(WIDER), source="s", actor=ALICE, accept=hash_of(WIDER))
    await control.apply_policy(files(NARROWER), source="s", actor=BOB)
    with pytest.raises(NotFound):
        await control.approve_policy(hash_of(WIDER), actor=BOB)


async def test_what_waits_can_be_refused(make):
    under_test = await make(two_person=True)
    control = under_test.control
    with pytest.raises(HeldError):
        await control.apply_policy(files(WIDER), source="s", actor=ALICE, accept=hash_of(WIDER))
    with pytest.raises(Conflict):
        await control.refuse_pending("0" * 64, actor=BOB)
    await control.refuse_pending(hash_of(WIDER), actor=BOB)
    assert control.status()["pending_policy"] is None
    assert records(under_test)[-1][:3] == ("refuse", "uid:1001", "deny")


async def test_a_proposal_that_cannot_be_read_is_dropped(make):
    under_test = await make(two_person=True)
    under_test.storage.proposals.put(b"{", _event())
    assert await under_test.control.pending_policy() is None
    with pytest.raises(NotFound):
        await under_test.control.approve_policy(hash_of(WIDER), actor=BOB)


def _event() -> Any:
    from datetime import UTC, datetime

    from everyhop.auditlog.model import Event

    return Event(kind=Kind.POLICY, action="propose", time=datetime(2026, 1, 1, tzinfo=UTC))
