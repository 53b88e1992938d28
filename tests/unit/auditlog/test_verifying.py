# SPDX-License-Identifier: Apache-2.0
"""Verifying: each way to tamper with a real database, told apart and with the first bad place."""

import shutil

import pytest
from tests.support.sealed_log import SealedLog

from everyhop.auditlog.verdict import Fault
from everyhop.auditlog.verifying import verify_log
from everyhop.core.errors import Unavailable
from everyhop.core.secret import Secret
from everyhop.tlog import Checkpoint, Cosigner, SignerKey, parse_note, sign_note

FORGE = "UPDATE records SET line = CAST(replace(line, 'allow[1]', 'allow[0]') AS BLOB) WHERE n = {}"
SHIFT_UP = ("UPDATE records SET n = -n WHERE n > 500", "UPDATE records SET n = -n - 1 WHERE n < 0")
SHIFT_DOWN = ("UPDATE records SET n = -n WHERE n >= 500", "UPDATE records SET n = -n + 1 WHERE n < 0")
COPY = (
    "INSERT INTO records SELECT {}, 'new', 'new', seq, time, kind, caller, target, decision, rule, subject, leaf,"
    " CAST(replace(line, 'agent', 'nobody') AS BLOB) FROM records WHERE n = 100"
)
DAMAGE = (
    "UPDATE log_tiles SET hashes = CAST(zeroblob(32) || substr(hashes, 33) AS BLOB) WHERE level = 0 AND n = 2"
)
# The hashes of the tile that still fills stand beside the records, and move with them.
MOVED = ((Fault.INSERTED, 499), (Fault.REWRITTEN, 1500))


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Make a log of 2,700 records, signed for at 1,500 and at its end."""
    root = tmp_path_factory.mktemp("log")
    root.chmod(0o700)
    made = SealedLog(root)
    made.append(1500)
    early = made.sign()
    made.append(1200)
    late = made.sign()
    made.close()
    return root, early, late


@pytest.fixture
def log(template, tmp_path):
    root, early, late = template
    copy = SealedLog(shutil.copytree(root, tmp_path / "copy"))
    copy.early, copy.late = early, late
    yield copy
    copy.close()


def found(verdict):
    return [(f.fault, f.index) for f in verdict.findings]


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([FORGE.format(777)], [(Fault.ALTERED, 776)]),
        ([FORGE.format(777), FORGE.format(9)], [(Fault.ALTERED, 8)]),
        (["UPDATE records SET line = 'text' WHERE n = 2700"], [(Fault.ALTERED, 2699)]),
        (["UPDATE records SET line = x'' WHERE n = 1"], [(Fault.ALTERED, 0)]),
        (["UPDATE records SET decision = 'deny' WHERE n = 778"], [(Fault.COLUMNS, 777)]),
        (["UPDATE records SET caller = NULL WHERE n >= 778"], [(Fault.COLUMNS, 777)]),
        (["UPDATE records SET time = time + 1 WHERE n = 778"], [(Fault.COLUMNS, 777)]),
        (["DELETE FROM records WHERE n = 500"], [(Fault.MISSING, 499)]),
        (["DELETE FROM records WHERE n BETWEEN 500 AND 1400"], [(Fault.MISSING, 499)]),
        (["DELETE FROM records WHERE n = 500", *SHIFT_UP], [(Fault.MISSING, 499)]),
        ([*SHIFT_DOWN, COPY.format(500)], [*MOVED, (Fault.INSERTED, 2700), (Fault.TREE, None)]),
        ([COPY.format(2701)], [(Fault.INSERTED, 2700)]),
        (
            [
                "UPDATE records SET n = -10 WHERE n = 10",
                "UPDATE records SET n = 10 WHERE n = 20",
                "UPDATE records SET n = 20 WHERE n = -10",
            ],
            [(Fault.REORDERED, 9)],
        ),
        (["DELETE FROM records WHERE n > 2600"], [(Fault.TRUNCATED, 2600)]),
        (["DELETE FROM records WHERE n = 2700"], [(Fault.TRUNCATED, 2699)]),
        (["DELETE FROM log_tiles WHERE level = 0 AND n = 2"], [(Fault.TREE, 0), (Fault.TREE, 512)]),
        ([DAMAGE], [(Fault.TREE, 512), (Fault.TREE, 512), (Fault.TREE, None)]),
        (["UPDATE log_tiles SET root = zeroblob(32) WHERE level = 0 AND n = 2"], [(Fault.TREE, 512)]),
        (["UPDATE log_tiles SET hashes = 'x' WHERE level = 0 AND n = 2"], [(Fault.TREE, 512)]),
        (["UPDATE records SET leaf = zeroblob(32) WHERE n = 2650"], [(Fault.TREE, 2649), (Fault.TREE, None)]),
    ],
)
def test_what_was_done_to_the_database_is_named_with_its_first_place(log, statements, expected):
    log.execute(*statements)
    verdict = log.verify()
    assert found(verdict) == expected
    assert verdict.outcome == "tampered"
    assert verdict.first_bad == expected[0][1]
    assert verdict.to_dict()["findings"][0]["fault"] == expected[0][0].value


def test_a_record_that_was_altered_is_named(log):
    log.execute(FORGE.format(777), "UPDATE records SET line = x'00' WHERE n = 800")
    message = log.verify().findings[0].message
    assert message == "record 777 (agent-777) is not what was sealed (and 1 more)"
    log.execute("UPDATE records SET line = x'00' WHERE n = 777")
    assert "no record any more" in log.verify().findings[0].message


def test_a_database_that_was_recomputed_as_a_whole_is_not_what_was_signed(log):
    log.execute(FORGE.format(777), "UPDATE records SET rule = 'allow[0]' WHERE n = 777")
    log.reseal()
    verdict = log.verify()
    assert found(verdict) == [(Fault.REWRITTEN, 0)]
    assert verdict.findings[0].last == 1499
    assert verdict.signed == 0


def test_the_signed_checkpoints_bracket_what_was_rewritten(log):
    log.execute(FORGE.format(1777), "UPDATE records SET rule = 'allow[0]' WHERE n = 1777")
    log.reseal()
    verdict = log.verify()
    assert found(verdict) == [(Fault.REWRITTEN, 1500)]
    assert (verdict.findings[0].last, verdict.signed) == (2699, 1500)
    assert verdict.findings[0].evidence == (log.late,)


def test_a_cut_end_is_told_by_the_checkpoint_that_is_left(log):
    log.execute("DELETE FROM records WHERE n > 2000")
    log.reseal()
    verdict = log.verify()
    assert found(verdict) == [(Fault.TRUNCATED, 2000)]
    assert verdict.findings[0].count == 700


def test_an_older_state_is_told_only_by_a_checkpoint_from_outside(log):
    log.execute("DELETE FROM records WHERE n > 2000", "DELETE FROM log_checkpoints WHERE size > 2000")
    log.reseal()
    alone = log.verify()
    assert (alone.outcome, alone.signed) == ("intact", 1500)
    verdict = log.verify(log.early, log.late)
    assert found(verdict) == [(Fault.RESTORED, 2000)]
    assert verdict.findings[0].evidence == (log.late,)


def test_a_fork_is_proven_by_both_checkpoints(log):
    forged = Checkpoint(origin=log.signer.origin, size=2700, root=bytes(32))
    note = sign_note(forged.text, log.signer._keys).encode()
    verdict = log.verify(note)
    assert found(verdict)[0] == (Fault.FORK, 1500)
    evidence = {text for f in verdict.findings for text in f.evidence}
    assert {note, log.late} <= evidence


def test_a_fork_of_two_sizes(log):
    forged = Checkpoint(origin=log.signer.origin, size=2000, root=bytes(32))
    verdict = log.verify(sign_note(forged.text, log.signer._keys).encode())
    assert found(verdict) == [(Fault.FORK, 1500)]
    assert verdict.findings[0].last == 1999


@pytest.mark.parametrize("change", [("\n2700\n", "\n2701\n"), ("\n2700\n", "\n2000\n")])
def test_an_edited_checkpoint(log, change):
    verdict = log.verify(log.late.replace(*change))
    assert found(verdict) == [(Fault.FORGED, None)]


def test_checkpoints_in_the_database_that_are_none(log):
    log.execute("UPDATE log_checkpoints SET note = 'x' WHERE size = 1500")
    assert found(log.verify()) == [(Fault.FORGED, None)]


def test_a_checkpoint_that_cannot_be_judged(log):
    stranger = SignerKey(log.signer.origin, Secret(b"s" * 32))
    other = SignerKey("other.example/log/1", Secret(b"s" * 32))
    head = Checkpoint(origin=log.signer.origin, size=2700, root=bytes(32))
    foreign = Checkpoint(origin=other.name, size=2700, root=bytes(32))
    for note in (sign_note(head.text, [stranger]).encode(), sign_note(foreign.text, [other]).encode(), "x"):
        verdict = log.verify(note)
        assert (verdict.outcome, verdict.findings, len(verdict.unverified)) == ("unverified", (), 1)


def test_nobody_vouches_without_a_key_or_a_checkpoint(log):
    no_key = verify_log(log.source(), trusted=())
    assert (no_key.outcome, no_key.origin, no_key.signed) == ("unverified", None, 0)
    log.execute("DELETE FROM log_checkpoints")
    assert log.verify().outcome == "unverified"
    # What is wrong by itself is wrong, whoever vouches for it.
    log.execute(FORGE.format(777))
    assert verify_log(log.source(), trusted=()).outcome == "tampered"


def test_a_store_that_does_not_answer_is_no_verdict(log):
    source = log.source()

    def entries(start, count):
        if start > 2000:
            raise Unavailable("it is away")
        return type(source).entries(source, start, count)

    class Broken:
        def __getattr__(self, name):
            return getattr(source, name)

    broken = Broken()
    broken.entries = entries
    verdict = verify_log(broken, trusted=log.signer.verifiers)
    assert (verdict.outcome, verdict.unverified, verdict.root) == ("unverified", ("it is away",), None)


@pytest.mark.parametrize("value", ["'x'", "7", "x'00'", "zeroblob(8)"])
def test_a_head_that_is_none(log, value):
    log.execute(f"UPDATE log_head SET frontier = {value}")
    with pytest.raises(Unavailable):
        log.source()


def test_an_intact_log(log):
    steps = []
    verdict = log.verify(log.early, log.late, progress=lambda done, total: steps.append((done, total)))
    assert (verdict.outcome, verdict.size, verdict.signed) == ("intact", 2700, 2700)
    assert (verdict.first_bad, verdict.checkpoints) == (None, 4)
    assert steps == [(1024, 2700), (2048, 2700), (2700, 2700)]


def test_what_came_behind_the_last_checkpoint_is_in_order_by_itself(log):
    log.append(10)
    verdict = log.verify()
    assert (verdict.outcome, verdict.size, verdict.signed) == ("intact", 2710, 2700)


def test_records_that_were_removed_by_age_leave_their_tree(log):
    log.storage.records.prune(now=log.clock.now(), keep_rows=1000)
    verdict = log.verify(log.early)
    assert (verdict.outcome, verdict.first_kept) == ("intact", 1536)
    log.execute("DELETE FROM records WHERE n = 1700")
    assert found(log.verify()) == [(Fault.MISSING, 1699)]


def test_who_says_that_records_were_removed_has_to_be_a_record_of_the_log(log):
    log.execute("DELETE FROM records WHERE n <= 512")
    assert found(log.verify()) == [(Fault.MISSING, 0)]
    log.execute('UPDATE records SET line = CAST(\'"operation":"prune"\' AS BLOB) WHERE n = 600')
    assert found(log.verify()) == [(Fault.MISSING, 0), (Fault.ALTERED, 599)]


def test_a_checkpoint_in_the_database_by_a_key_that_is_retired_counts_for_nothing(log):
    stranger = SignerKey(log.signer.origin, Secret(b"s" * 32))
    note = sign_note(
        Checkpoint(origin=log.signer.origin, size=1500, root=bytes(32)).text, [stranger]
    ).encode()
    with log.storage.database.writing() as connection:
        connection.exec_driver_sql("UPDATE log_checkpoints SET note = ? WHERE size = 1500", (note,))
    verdict = log.verify()
    assert (verdict.outcome, verdict.checkpoints) == ("intact", 1)


def test_witnesses_are_named(log):
    witness = Cosigner(SignerKey("witness.example/w1", Secret(b"w" * 32)))
    note = parse_note(log.late.encode())
    cosigned = note.with_signatures([witness.cosign(note.text, time=5)]).encode()
    verdict = log.verify(cosigned, witnesses=[witness.verifier])
    assert verdict.witnesses == ("witness.example/w1",)
    assert log.verify(witnesses=[witness.verifier]).witnesses == ()
