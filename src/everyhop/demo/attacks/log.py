# SPDX-License-Identifier: Apache-2.0
"""Attacks on the audit log: somebody who can write the database, and a receipt that says something else.

Each works on a copy of the state directory's database and asks ``everyhop log verify`` what it thinks of it.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from everyhop.demo.model import Attempt, Seen
from everyhop.demo.stage import wait_for
from everyhop.runtime.layout import StateLayout

if TYPE_CHECKING:
    from collections.abc import Callable

    from everyhop.demo.range import Range

_THEME: Final = "the log"
_PLACE: Final = 40
_SIGNED_SECONDS: Final = 5.0


def _altered(database: sqlite3.Connection) -> None:
    database.execute(
        "UPDATE records SET line = CAST(replace(CAST(line AS TEXT), 'deny', 'axxx') AS BLOB) WHERE n = ?",
        (_denied(database),),
    )


def _denied(database: sqlite3.Connection) -> int:
    found = database.execute("SELECT min(n) FROM records WHERE decision = 'deny' AND n > ?", (_PLACE,))
    return int(found.fetchone()[0])


def _columns(database: sqlite3.Connection) -> None:
    database.execute("UPDATE records SET decision = 'allow' WHERE n = ?", (_denied(database),))


def _deleted(database: sqlite3.Connection) -> None:
    database.execute("DELETE FROM records WHERE n = ?", (_PLACE,))


def _swapped(database: sqlite3.Connection) -> None:
    database.execute("UPDATE records SET n = 0 WHERE n = ?", (_PLACE,))
    database.execute("UPDATE records SET n = ? WHERE n = ?", (_PLACE, _PLACE + 1))
    database.execute("UPDATE records SET n = ? WHERE n = 0", (_PLACE + 1,))


def _cut(database: sqlite3.Connection) -> None:
    database.execute("DELETE FROM records WHERE n > (SELECT max(n) - 5 FROM records)")


def _untouched(_database: sqlite3.Connection) -> None:
    """Change nothing: what is as it was must be called intact."""


def _verify(change: Callable[[sqlite3.Connection], None]) -> Callable[[Range], Seen]:
    def run(field: Range) -> Seen:
        stage = field.stage
        copy = StateLayout(stage.base / "copy")
        # What is behind the last signature is in order by itself only, so it is waited for.
        wait_for(lambda: (log := stage.status()["log"])["size"] and log["problem"] is None, _SIGNED_SECONDS)
        try:
            shutil.copytree(stage.layout.keys, copy.keys)
            with (
                closing(sqlite3.connect(stage.layout.database)) as source,
                closing(sqlite3.connect(copy.database, isolation_level=None)) as database,
            ):
                source.backup(database)
                copy.database.chmod(0o600)
                change(database)
            done = stage.everyhop("log", "verify", "-o", "json", "--state", str(copy.root))
        finally:
            shutil.rmtree(copy.root, ignore_errors=True)
        return Seen(text=f"exit {done.returncode}: {_told(done.stdout)}")

    return run


def _told(output: str) -> str:
    try:
        verdict: dict[str, Any] = json.loads(output)
    except ValueError:
        return output[:80]
    faults = list(dict.fromkeys(finding["fault"] for finding in verdict.get("findings", ())))
    return ", ".join(faults) or str(verdict["outcome"])


def _receipt(field: Range) -> Seen:
    """Take the receipt of a refusal and let it say that the call was allowed."""
    stage = field.stage
    (record,) = stage.admin.get("/v1/records", kind="decision", decision="deny", limit=1)["records"]
    keys = stage.base / "receipt"
    keys.mkdir(exist_ok=True)
    file, tiles = keys / "r.tlog-proof", keys / "tiles"
    wait_for(
        lambda: stage.everyhop("log", "prove", record["id"], "--out", str(file)).returncode == 0,
        _SIGNED_SECONDS,
    )
    stage.everyhop("log", "export", "--tiles", str(tiles))
    verify = ("log", "verify", "--receipt", str(file), "--vkey", str(tiles / "log.vkey"), "-o", "json")
    honest = stage.everyhop(*verify)
    lines = file.read_text("ascii").splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if line.startswith("index "))
    lines[place] = f"index {int(lines[place].split()[1]) - 1}\n"
    file.write_text("".join(lines), "ascii")
    return Seen(text=f"exit {honest.returncode}, then {stage.everyhop(*verify).returncode}")


def attacks() -> list[Attempt]:
    """Return them."""
    rows: tuple[tuple[str, Callable[[sqlite3.Connection], None], str], ...] = (
        ("the log as it is", _untouched, "exit 0: intact"),
        ("one refusal altered in the database", _altered, "exit 1: altered"),
        ("a column that says something else than its line", _columns, "exit 1: columns"),
        ("one record deleted", _deleted, "exit 1: missing"),
        ("two records in each other's place", _swapped, "exit 1: reordered"),
        ("the newest records deleted", _cut, "exit 1: truncated"),
    )
    return [
        *(
            Attempt(theme=_THEME, name=name, expected=expected, run=_verify(change))
            for name, change, expected in rows
        ),
        Attempt(
            theme=_THEME,
            name="a receipt, honest and with another place",
            expected="exit 0, then 1",
            run=_receipt,
        ),
    ]
