# SPDX-License-Identifier: Apache-2.0
"""The sealed log: records numbered without gaps, the tree over them; consumers, blocks, detection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

from everyhop.tlog.merkle import Frontier, leaf_hash

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COLUMNS = ("id", "producer", "seq", "time", "kind", "caller", "target", "decision", "rule")
_TILE = 256
_PAGE = 2000
_INDEXES = {"time": ["time"], "target": ["target", "n"], "caller": ["caller", "n"], "rule": ["rule", "n"]}


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Number the records that are there from 1, without gaps, seal them, and create the rest."""
    for name in (*_INDEXES, "denied"):
        op.drop_index(f"records_{name}", "records")
    _move_away("records_before")
    _create_records(autoincrement=False)
    op.create_index("records_subject", "records", ["subject", "n"])
    _create_tree()
    _seal_records()
    op.drop_table("records_before")
    _create_readers()
    _create_responses()


def _move_away(name: str) -> None:
    """Rename the table, and on PostgreSQL what keeps its name of its own and would be in the way."""
    op.rename_table("records", name)
    if op.get_bind().dialect.name == "postgresql":
        constraints = op.get_bind().execute(
            sa.text("SELECT conname FROM pg_constraint WHERE conrelid = CAST(:name AS regclass)"),
            {"name": name},
        )
        for number, constraint in enumerate(constraints.scalars().all()):
            op.execute(f'ALTER TABLE {name} RENAME CONSTRAINT "{constraint}" TO {name}_{number}')
        op.execute(f"ALTER SEQUENCE IF EXISTS records_n_seq RENAME TO {name}_n_seq")


def _seal_records() -> None:
    """Copy the records in their order, page by page; compute their tree on the way, and what was pruned before them."""
    connection = op.get_bind()
    frontier = Frontier()
    leaves: list[bytes] = []
    for rows in _pages(connection):
        for row in rows:
            row["leaf"] = leaf_hash(row["line"])
            row["subject"] = _user(row["line"])
            row["n"] = frontier.size + 1
            frontier.append(row["leaf"])
            leaves.append(row["leaf"])
        connection.execute(sa.insert(_table("records", "n", *_COLUMNS, "subject", "leaf", "line")), rows)
    connection.execute(
        sa.insert(_table("log_head", "one", "size", "frontier")),
        {"one": 1, "size": frontier.size, "frontier": frontier.to_bytes()},
    )
    _insert_tiles(connection, leaves)
    # What stood before the first number of a producer was pruned, and must not come again.
    op.execute(
        "INSERT INTO log_pruned (producer, first, last)"
        " SELECT producer, 1, min(seq) - 1 FROM records GROUP BY producer HAVING min(seq) > 1"
    )


def _pages(connection: sa.Connection) -> Iterator[list[dict[str, Any]]]:
    before = _table("records_before", "n", *_COLUMNS, "line")
    position = -(2**62)
    while True:
        statement = sa.select(before).where(before.c.n > position).order_by(before.c.n).limit(_PAGE)
        rows = [dict(row) for row in connection.execute(statement).mappings()]
        if not rows:
            return
        position = rows[-1]["n"]
        yield rows


def _insert_tiles(connection: sa.Connection, hashes: list[bytes]) -> None:
    table = _table("log_tiles", "level", "n", "hashes", "root")
    level = 0
    while len(hashes) >= _TILE:
        roots = []
        for n in range(len(hashes) // _TILE):
            tile = hashes[n * _TILE : (n + 1) * _TILE]
            tree = Frontier()
            tree.extend(tile)
            roots.append(tree.root())
            row = {"level": level, "n": n, "hashes": b"".join(tile), "root": roots[-1]}
            connection.execute(sa.insert(table), row)
        hashes, level = roots, level + 1


def _user(line: bytes) -> str | None:
    detail = msgspec.json.decode(line).get("detail", {})
    user = detail.get("user")
    return user.replace("\0", "\ufffd") if isinstance(user, str) else None


def _table(name: str, *columns: str) -> sa.TableClause:
    return sa.table(name, *(sa.column(column) for column in columns))


def _create_records(*, autoincrement: bool) -> None:
    subject = [] if autoincrement else [sa.Column("subject", sa.Text)]
    leaf = [] if autoincrement else [sa.Column("leaf", sa.LargeBinary, nullable=False)]
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "records",
        sa.Column("n", _number(), primary_key=True, autoincrement=autoincrement),
        sa.Column("id", sa.Text if autoincrement else text, nullable=False, unique=True),
        sa.Column("producer", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("caller", sa.Text),
        sa.Column("target", sa.Text),
        sa.Column("decision", sa.Text),
        sa.Column("rule", sa.Text),
        *subject,
        *leaf,
        sa.Column("line", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("producer", "seq", name="records_place"),
        sqlite_autoincrement=autoincrement,
    )
    for name, columns in _INDEXES.items():
        op.create_index(f"records_{name}", "records", columns)
    op.create_index(
        "records_denied",
        "records",
        ["n"],
        sqlite_where=sa.text("decision = 'deny'"),
        postgresql_where=sa.text("decision = 'deny'"),
    )


def _create_tree() -> None:
    op.create_table(
        "log_head",
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("frontier", sa.LargeBinary, nullable=False),
        sa.CheckConstraint("one = 1", name="log_head_one"),
    )
    op.create_table(
        "log_tiles",
        sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("n", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "log_pruned",
        sa.Column("producer", sa.Text, primary_key=True),
        sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("last", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "log_checkpoints",
        sa.Column("origin", sa.Text, primary_key=True),
        sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("signed_at", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
    )
    op.create_table(
        "log_seals",
        sa.Column("producer", sa.Text, primary_key=True),
        sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("previous", sa.LargeBinary, nullable=False),
        sa.Column("certificate", sa.Text, nullable=False),
        sa.Column("signed_at", sa.BigInteger, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("marks", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "log_certificates",
        sa.Column("thumbprint", sa.Text, primary_key=True),
        sa.Column("chain", sa.LargeBinary, nullable=False),
        sa.Column("first_seen", sa.BigInteger, nullable=False),
    )


def _create_readers() -> None:
    op.create_table(
        "pseudonyms",
        sa.Column("pseudonym", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("lookup", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "consumers",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("moved_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
    )


def _create_responses() -> None:
    op.create_table(
        "blocks",
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("finding", sa.Text),
        sa.CheckConstraint("mode IN ('block', 'quarantine')", name="blocks_mode"),
    )
    op.create_index("blocks_until", "blocks", ["until"])
    op.create_table(
        "block_state",
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.CheckConstraint("one = 1", name="block_state_one"),
    )
    op.create_table(
        "detector_state",
        sa.Column("detector", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("moved_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "canaries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("mark", sa.LargeBinary, unique=True),
        sa.Column("response", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.CheckConstraint("kind IN ('api-key', 'secret', 'service')", name="canaries_kind"),
        sa.CheckConstraint("response IN ('alert', 'block', 'quarantine')", name="canaries_response"),
    )


def downgrade() -> None:
    """Drop the tree and what else came with it; the records stay."""
    for table in (
        *("canaries", "detector_state", "block_state", "blocks", "leases", "consumers", "pseudonyms"),
        *("log_certificates", "log_seals", "log_checkpoints", "log_pruned", "log_tiles", "log_head"),
    ):
        op.drop_table(table)
    for name in (*_INDEXES, "denied", "subject"):
        op.drop_index(f"records_{name}", "records")
    _move_away("records_after")
    _create_records(autoincrement=True)
    columns = ", ".join(("n", *_COLUMNS))
    op.execute(
        f"INSERT INTO records ({columns}, line) SELECT {columns}, line FROM records_after ORDER BY n"  # noqa: S608
    )
    op.drop_table("records_after")
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "SELECT setval(pg_get_serial_sequence('records', 'n'), max(n)) FROM records HAVING max(n) > 0"
        )
