# SPDX-License-Identifier: Apache-2.0
"""Signing the head: never over a database that is not what it was, and again after a crash in the middle."""

from datetime import timedelta

import pytest
from tests.support.sealed_log import SealedLog

from everyhop.core.errors import Conflict, Unavailable
from everyhop.tlog import open_checkpoint


@pytest.fixture
def log(tmp_path):
    tmp_path.chmod(0o700)
    made = SealedLog(tmp_path)
    yield made
    made.close()


def test_a_restored_backup_is_not_signed_over(log, tmp_path):
    log.append(300)
    log.sign()
    log.snapshot(tmp_path / "backup")
    log.append(300)
    log.sign()
    log.restore(tmp_path / "backup")
    with pytest.raises(Conflict, match=r"has 300 records, but 600 were signed for") as refused:
        log.checkpointer.check()
    assert "everyhop log restart" in refused.value.hint
    with pytest.raises(Conflict, match=r"has 300 records, and 600"):
        log.checkpointer.step()
    # Growing past the old size does not make it the same log.
    log.append(400, producer="other")
    with pytest.raises(Conflict, match="does not contain the 600 records"):
        log.checkpointer.check()
    with pytest.raises(Conflict, match="do not follow"):
        log.checkpointer.step()


def test_a_rewritten_database_is_not_signed_over(log):
    log.append(700)
    log.sign()
    log.execute("UPDATE records SET line = CAST(replace(line, 'payments', 'paymentz') AS BLOB) WHERE n = 5")
    log.reseal()
    log.reopen()
    with pytest.raises(Conflict, match="does not contain the 700 records"):
        log.checkpointer.check()
    log.append(10)
    with pytest.raises(Conflict, match="do not follow"):
        log.checkpointer.step()


def test_an_emptied_database_is_not_signed_over(log):
    log.append(3)
    log.sign()
    log.execute("DELETE FROM records", "UPDATE log_head SET size = 0, frontier = zeroblob(8)")
    with pytest.raises(Conflict, match="has 0 records, but 3"):
        log.checkpointer.check()
    assert log.checkpointer.step() is None


def test_tiles_that_were_altered_are_not_signed_over(log):
    log.append(600)
    log.sign()
    log.append(100)
    log.execute("UPDATE log_tiles SET root = zeroblob(32) WHERE n = 1")
    with pytest.raises(Conflict, match="it was altered"):
        log.checkpointer.step()
    with pytest.raises(Conflict, match="does not contain"):
        log.checkpointer.check()
    log.execute("DELETE FROM log_tiles WHERE n = 1")
    with pytest.raises(Conflict, match="does not contain"):
        log.checkpointer.check()


def test_what_was_signed_and_is_altered_before_more_comes_is_noticed(log):
    log.append(100)
    log.sign()
    log.execute("UPDATE records SET leaf = zeroblob(32) WHERE n = 7")
    with pytest.raises(Conflict, match="it was altered"):
        log.checkpointer.step()


def test_an_older_key_directory_does_not_hide_what_was_signed_later(log, tmp_path):
    log.append(300)
    log.sign()
    log.snapshot(tmp_path / "backup")
    older = (log.keys / "checkpoint").read_bytes()
    log.append(300)
    log.sign()
    (log.keys / "checkpoint").write_bytes(older)
    log.execute(
        "DELETE FROM records WHERE n > 400",
    )
    log.reseal()
    log.reopen()
    with pytest.raises(Conflict, match="has 400 records, but 600"):
        log.checkpointer.check()


def test_a_head_that_cannot_be_read_is_an_error(log):
    log.append(3)
    log.execute("UPDATE log_head SET frontier = zeroblob(7)")
    with pytest.raises(Unavailable, match="altered"):
        log.checkpointer.check()


def test_the_head_is_signed_when_it_grew(log):
    assert log.checkpointer.step() is None
    log.append(5)
    first = log.checkpointer.step()
    assert first.size == 5
    assert log.checkpointer.step() is None
    log.append(600)
    second = log.checkpointer.step()
    assert second.size == 605
    opened = open_checkpoint(second.note.encode(), log.signer.verifiers)
    assert opened.checkpoint.root == second.root
    assert log.storage.log_tree.latest_checkpoint(log.signer.origin) == second
    assert log.storage.log_tree.origins() == [log.signer.origin]
    log.checkpointer.check()


def test_what_was_signed_before_a_crash_gets_into_the_database_after_it(log):
    log.append(5)
    log.sign()
    log.execute("DELETE FROM log_checkpoints")
    log.checkpointer.check()
    kept = log.checkpointer.step()
    assert kept.size == 5
    assert log.checkpointer.step() is None


def test_of_old_checkpoints_one_an_hour_is_kept(log):
    checkpointer = log.checkpointer
    for _ in range(6):
        log.append(1)
        log.clock.advance(timedelta(minutes=20))
        checkpointer.step()
    assert checkpointer.thin() == 0  # none is a day old
    log.clock.advance(timedelta(hours=30))
    log.append(1)
    checkpointer.step()
    assert checkpointer.thin() == 3
    sizes = [kept.size for kept in log.storage.log_tree.checkpoints(log.signer.origin)]
    assert sizes == [1, 3, 6, 7]
    assert checkpointer.thin() == 0
    assert log.verify().outcome == "intact"


def test_a_forged_checkpoint_in_the_database_stops_nobody(log):
    log.append(5)
    note = log.sign()
    log.execute(
        f"INSERT INTO log_checkpoints VALUES ('{log.signer.origin}', 900, zeroblob(32), 1, 'x')",
    )
    assert note
    log.checkpointer.check()
