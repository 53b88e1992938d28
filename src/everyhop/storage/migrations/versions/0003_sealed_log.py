# SPDX-License-Identifier: Apache-2.0
"""The sealed log: records numbered without gaps, the tree over them; consumers, blocks, detection."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COLUMNS = ("id", "producer", "seq", "time", "kind", "caller", "target", "decision", "rule")
_INDEXES = {"time": ["time"], "target": ["target", "n"], "caller": ["caller", "n"], "rule": ["rule", "n"]}


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Number the records that are there from 1, without gaps, and create the rest."""
    op.rename_table("records", "records_before")
    for name in (*_INDEXES, "denied"):
        op.drop_index(f"records_{name}")
    _create_records(autoincrement=False)
    columns = ", ".join(_COLUMNS)
    op.execute(
        f"INSERT INTO records (n, {columns}, line)"  # noqa: S608  # names of ours
        f" SELECT row_number() OVER (ORDER BY n), {columns}, line FROM records_before ORDER BY n"
    )
    op.drop_table("records_before")
    op.create_index("records_subject", "records", ["subject", "n"])
    _create_tree()
    _create_readers()
    _create_responses()


def _create_records(*, autoincrement: bool) -> None:
    further = [] if autoincrement else [sa.Column("subject", sa.Text)]
    op.create_table(
        "records",
        sa.Column("n", _number(), primary_key=True, autoincrement=autoincrement),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("producer", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("caller", sa.Text),
        sa.Column("target", sa.Text),
        sa.Column("decision", sa.Text),
        sa.Column("rule", sa.Text),
        *further,
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
        *("log_certificates", "log_seals", "log_checkpoints", "log_tiles", "log_head"),
    ):
        op.drop_table(table)
    op.rename_table("records", "records_after")
    for name in (*_INDEXES, "denied", "subject"):
        op.drop_index(f"records_{name}")
    _create_records(autoincrement=True)
    columns = ", ".join(("n", *_COLUMNS))
    op.execute(
        f"INSERT INTO records ({columns}, line) SELECT {columns}, line FROM records_after ORDER BY n"  # noqa: S608
    )
    op.drop_table("records_after")
