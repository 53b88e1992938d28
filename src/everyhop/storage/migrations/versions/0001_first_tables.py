# SPDX-License-Identifier: Apache-2.0
"""First tables: authorities, bundle sequence, snapshots, records, meta."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create everything."""
    _create_authorities()
    op.create_table(
        "bundle_state",
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.CheckConstraint("one = 1", name="bundle_state_one"),
    )
    op.create_table(
        "snapshots",
        sa.Column("n", _number(), primary_key=True, autoincrement=True),
        sa.Column("hash", sa.Text, nullable=False, unique=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("saved_at", sa.BigInteger, nullable=False),
        sa.Column("applied", sa.BigInteger, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("snapshots_applied", "snapshots", ["applied"], unique=True)
    _create_records()
    op.create_table(
        "meta",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )


def _create_authorities() -> None:
    op.create_table(
        "authorities",
        sa.Column("n", _number(), primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("public", sa.LargeBinary, nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("not_before", sa.BigInteger, nullable=False),
        sa.Column("not_after", sa.BigInteger, nullable=False),
        sa.Column("published_sequence", sa.BigInteger, nullable=False),
        sa.Column("activated_at", sa.BigInteger),
        sa.Column("retired_at", sa.BigInteger),
        sa.Column("signed_until", sa.BigInteger),
        sa.CheckConstraint("kind IN ('x509', 'jwt')", name="authorities_kind"),
        sa.CheckConstraint("status IN ('prepared', 'active', 'old')", name="authorities_status"),
        sa.CheckConstraint("(status = 'old') = (wrapped_key IS NULL)", name="authorities_key"),
        sqlite_autoincrement=True,
    )
    for status in ("active", "prepared"):
        op.create_index(
            f"authorities_one_{status}",
            "authorities",
            ["kind"],
            unique=True,
            sqlite_where=sa.text(f"status = '{status}'"),
            postgresql_where=sa.text(f"status = '{status}'"),
        )


def _create_records() -> None:
    op.create_table(
        "records",
        sa.Column("n", _number(), primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("producer", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("caller", sa.Text),
        sa.Column("target", sa.Text),
        sa.Column("decision", sa.Text),
        sa.Column("rule", sa.Text),
        sa.Column("line", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("producer", "seq", name="records_place"),
        sqlite_autoincrement=True,
    )
    op.create_index("records_time", "records", ["time"])
    op.create_index("records_target", "records", ["target", "n"])
    op.create_index("records_caller", "records", ["caller", "n"])
    op.create_index("records_rule", "records", ["rule", "n"])
    op.create_index(
        "records_denied",
        "records",
        ["n"],
        sqlite_where=sa.text("decision = 'deny'"),
        postgresql_where=sa.text("decision = 'deny'"),
    )


def downgrade() -> None:
    """Drop everything."""
    for table in ("meta", "records", "snapshots", "bundle_state", "authorities"):
        op.drop_table(table)
