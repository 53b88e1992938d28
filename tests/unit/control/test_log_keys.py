# SPDX-License-Identifier: Apache-2.0
"""Changing the log's key is a record, which carries the new key and is signed for by the old one."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support.sealed_log import SealedLog

from everyhop.auditlog import RecordFilter
from everyhop.control.log_keys import LogKeys
from everyhop.core.errors import Conflict, SettingsError
from everyhop.runtime.layout import StateLayout
from everyhop.runtime.log_settings import check_log_settings, check_url, parse_witness
from everyhop.runtime.log_works import log_directory, open_log
from everyhop.storage import open_storage
from everyhop.tlog import open_checkpoint

WITNESS = "witness.example/w1+2786ffe5+BBbCNC4RPewzfqf8Eo0DLpB5yl62a3w38VNUt8tWD/Eo"


@pytest.fixture
def log(tmp_path):
    tmp_path.chmod(0o700)
    made = SealedLog(tmp_path)
    yield made
    made.close()


def test_both_steps_are_on_record(log):
    old = log.signer.verifiers[0]

    async def change():
        with ThreadPoolExecutor(1) as pool:
            keys = LogKeys(log.signer, log.storage.records, log.clock, pool)
            both = await keys.rotate(retire=False)
            note = log.sign()
            return both, note, await keys.rotate(retire=True)

    both, note, left = asyncio.run(change())
    assert both[1] == str(old)
    assert left == both[:1]
    records = log.storage.records.query(RecordFilter()).records[::-1]
    assert [(r.operation, r.reason) for r in records] == [("key", "rotated"), ("key", "retired")]
    assert records[0].detail["key"] == both[0]
    assert records[1].detail["ended"] == old.key_id.hex()
    # The record with the new key is under a checkpoint that the old one signed.
    assert open_checkpoint(note.encode(), [old]).checkpoint.size == 1


def test_a_database_that_was_signed_by_a_key_that_is_gone(tmp_path):
    layout = StateLayout(tmp_path)
    storage = open_storage(tmp_path / "everyhop.db")
    (tmp_path / "keys").mkdir(mode=0o700)
    signer = open_log(storage, layout, "shop.example")
    assert open_log(storage, layout, "shop.example").origin == signer.origin
    statement = f"INSERT INTO log_checkpoints VALUES ('{signer.origin}', 1, zeroblob(32), 1, 'x')"
    with storage.database.writing() as connection:
        connection.exec_driver_sql(statement)
    (log_directory(layout) / "key").unlink()
    with pytest.raises(Conflict, match="its key is not in") as refused:
        open_log(storage, layout, "shop.example")
    assert "log restart" in refused.value.hint
    assert not (log_directory(layout) / "key").exists()
    storage.close()


@pytest.mark.parametrize(
    ("file", "webhook", "witnesses"),
    [
        ("relative", "", ()),
        ("", "ftp://x", ()),
        ("", "http://siem.example/x", ()),
        ("", "https://", ()),
        ("", "https://[::1", ()),
        ("", "https://x:99999999", ()),
        ("", "unix:relative", ()),
        ("", "", ("https://w.example",)),
        ("", "", ("https://w.example x",)),
        ("", "", (f"http://w.example {WITNESS}",)),
        ("", "", (f"https://a.example {WITNESS}", f"https://b.example {WITNESS}")),
    ],
)
def test_places_that_checkpoints_do_not_go_to(file, webhook, witnesses):
    with pytest.raises(SettingsError) as refused:
        check_log_settings(file, webhook, witnesses)
    assert len(webhook) < 10 or webhook not in str(refused.value)


def test_places_that_checkpoints_go_to():
    check_log_settings("/x", "https://siem.example/secret", (f"unix:/run/w.sock {WITNESS}",))
    check_log_settings("", "", ())
    assert parse_witness(f"https://w.example {WITNESS}")[0] == "https://w.example"
    for url in ("http://127.0.0.1:9/x", "http://[::1]:9", "unix:///run/x"):
        assert check_url(url) == url
