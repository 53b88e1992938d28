# SPDX-License-Identifier: Apache-2.0
"""The audit log of a whole trust domain under attack: somebody has the database, and somebody else the checkpoints."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from trust_domain import TrustDomainUnderTest, wait_until

from everyhop.tlog import Frontier, leaf_hash

READERS = """
audit: {readers: [orders]}
"""


def log(domain: TrustDomainUnderTest, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "everyhop", "log", *arguments],
        env=domain.environment,
        cwd=domain.root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def head(domain: TrustDomainUnderTest) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "everyhop", "status", "-o", "json"],
        env=domain.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    status: dict[str, object] = json.loads(done.stdout)
    return status


def size(domain: TrustDomainUnderTest) -> int:
    note = domain.state / "keys" / "log" / "checkpoint"
    return int(note.read_text().splitlines()[1]) if note.exists() else 0


def execute(domain: TrustDomainUnderTest, *statements: str) -> None:
    with closing(sqlite3.connect(domain.state / "everyhop.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture(scope="module")
def domain():
    with TrustDomainUnderTest() as started:
        started.policy.write_text(started.policy.read_text() + READERS)
        wait_until(lambda: size(started) >= 5, what="the head is signed")
        yield started


def stop(domain: TrustDomainUnderTest) -> None:
    assert domain.up_process is not None
    domain.up_process.terminate()
    domain.up_process.wait(30)


def test_one_byte_of_a_running_domain(domain: TrustDomainUnderTest) -> None:
    assert log(domain, "verify").returncode == 0
    (receipt,) = [
        json.loads(line)["id"]
        for line in log(domain, "show", "--all", "-n", "1", "-o", "json").stdout.splitlines()
    ]
    wait_until(
        lambda: log(domain, "prove", receipt, "--out", "receipt").returncode == 0, what="it is signed for"
    )
    assert log(domain, "export", "--tiles", "first").returncode == 0
    shutil.copy(domain.root / "first" / "log.vkey", domain.root / "first.vkey")
    execute(
        domain, "UPDATE records SET line = CAST(replace(line, '\"seq\":3', '\"seq\":4') AS BLOB) WHERE n = 3"
    )
    done = log(domain, "verify")
    assert done.returncode == 1
    assert done.stdout.startswith("ALTERED: record 3 (")
    execute(
        domain, "UPDATE records SET line = CAST(replace(line, '\"seq\":4', '\"seq\":3') AS BLOB) WHERE n = 3"
    )
    assert log(domain, "verify").returncode == 0


def test_at_the_face_records_are_for_readers_and_proofs_for_all(domain: TrustDomainUnderTest) -> None:
    urls = head(domain)["urls"]
    assert isinstance(urls, dict)
    for service in ("orders", "storefront"):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "everyhop",
                "svid",
                "fetch",
                service,
                "--write",
                str(domain.root / service),
            ],
            env=domain.environment,
            capture_output=True,
            timeout=60,
            check=True,
        )
    ask = ("verify", "--url", str(urls["log"]))
    wait_until(lambda: log(domain, *ask, "--svid", "orders").returncode == 0, what="orders may read")
    refused = log(domain, *ask, "--svid", "storefront")
    assert refused.returncode == 2
    assert "is not shown to us (403)" in refused.stdout + refused.stderr
    shown = log(domain, "show", "--all", "-n", "50", "-o", "json").stdout
    reads = [r for r in map(json.loads, shown.splitlines()) if r["operation"] == "read"]
    assert {(r["caller"].rpartition("/")[2], r["decision"]) for r in reads} >= {
        ("orders", "allow"),
        ("storefront", "deny"),
    }


def test_a_changed_key_is_trusted_through_the_old_one(domain: TrustDomainUnderTest) -> None:
    assert log(domain, "export", "--tiles", "tiles").returncode == 0
    old = (domain.root / "tiles" / "log.vkey").read_text().strip()
    keys = log(domain, "rotate-key").stdout.split()
    assert (len(keys), keys[1]) == (2, old)
    wait_until(lambda: log(domain, "export", "--tiles", "tiles").returncode == 0)
    for key in keys:
        wait_until(
            lambda key=key: (
                log(domain, "verify", "--tiles", "tiles", "--vkey", key).returncode == 0
                or log(domain, "export", "--tiles", "tiles").returncode
            ),
            what="both keys sign",
        )
    assert log(domain, "rotate-key", "--retire").stdout.split() == [keys[0]]


def test_a_restored_backup_is_refused_at_start_and_accepted_on_record_only(
    domain: TrustDomainUnderTest,
) -> None:
    database = domain.state / "everyhop.db"
    stop(domain)
    backup = domain.root / "backup"
    shutil.copy(database, backup)
    before = size(domain)
    domain.up()
    wait_until(lambda: size(domain) > before, what="something more is signed")
    yesterday = domain.root / "yesterday"
    shutil.copy(domain.state / "keys" / "log" / "checkpoint", yesterday)
    stop(domain)
    assert log(domain, "verify", "--against", "yesterday").returncode == 0
    for suffix in ("", "-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    shutil.copy(backup, database)
    database.chmod(0o600)
    done = log(domain, "verify", "--against", "yesterday")
    assert done.returncode == 1
    assert done.stdout.startswith("RESTORED: ")
    with pytest.raises(AssertionError) as refused:
        domain.up()
    domain.up_process.wait(30)
    said = str(refused.value) + (domain.root / "up.err").read_text()
    assert f"has {before} records, but {size(domain)} were signed for" in said
    assert "everyhop log restart" in said
    assert log(domain, "restart", "--reason", "the disk was lost").returncode == 0
    domain.up()
    wait_until(lambda: size(domain) > before, what="the new log is signed")
    # Intact, though what producers had numbered beyond the backup is missing, which is told apart.
    wait_until(lambda: '"outcome": "intact"' in log(domain, "verify", "-o", "json").stdout)
    assert log(domain, "verify", "--against", "yesterday").returncode == 2


def test_a_cut_end_and_a_recomputed_tree(domain: TrustDomainUnderTest) -> None:
    stop(domain)
    kept = domain.root / "kept"
    shutil.copy(domain.state / "keys" / "log" / "checkpoint", kept)
    vkey = domain.root / "log.vkey"
    log(domain, "export", "--tiles", "fresh")
    shutil.copy(domain.root / "fresh" / "log.vkey", vkey)
    signed = int(kept.read_text().splitlines()[1])
    with closing(sqlite3.connect(domain.state / "everyhop.db")) as connection, connection:
        lines = connection.execute(
            "SELECT line FROM records WHERE n <= ? ORDER BY n", (signed - 2,)
        ).fetchall()
        tree = Frontier()
        tree.extend(leaf_hash(line) for (line,) in lines)
        connection.execute("DELETE FROM records WHERE n > ?", (signed - 2,))
        connection.execute("DELETE FROM log_checkpoints WHERE size > ?", (signed - 2,))
        connection.execute("UPDATE log_head SET size = ?, frontier = ?", (tree.size, tree.to_bytes()))
    done = log(domain, "verify", "--vkey", "log.vkey", "--against", "kept")
    assert done.returncode == 1
    assert f"has {signed - 2} records, and the checkpoint kept was signed for {signed}" in done.stdout


def test_a_receipt_where_nothing_else_is(domain: TrustDomainUnderTest, tmp_path: Path) -> None:
    vkey = (domain.root / "first.vkey").read_text().strip()
    shutil.copy(domain.root / "receipt", tmp_path / "receipt")
    done = subprocess.run(
        [sys.executable, "-m", "everyhop", "log", "verify", "--receipt", "receipt", "--vkey", vkey],
        env={**domain.environment, "EVERYHOP_STATE": str(tmp_path / "nothing")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Key and log have changed since, and what was signed stays signed for those who have the key of then.
    assert done.returncode == 0, done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["receipt"]
