# SPDX-License-Identifier: Apache-2.0
"""Tokens: signing keys, revocations, their sequence; API keys and their peppers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the five tables."""
    _create_signing_keys()
    _create_revocations()
    op.create_table(
        "token_state",
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.CheckConstraint("one = 1", name="token_state_one"),
    )
    _create_api_keys()


def _create_signing_keys() -> None:
    op.create_table(
        "signing_keys",
        sa.Column("n", _number(), primary_key=True, autoincrement=True),
        sa.Column("kid", sa.Text, nullable=False, unique=True),
        sa.Column("algorithm", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("public", sa.LargeBinary, nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("published_sequence", sa.BigInteger, nullable=False),
        sa.Column("activated_at", sa.BigInteger),
        sa.Column("retired_at", sa.BigInteger),
        sa.CheckConstraint("status IN ('prepared', 'active', 'retained')", name="signing_keys_status"),
        sa.CheckConstraint("(status = 'retained') = (wrapped_key IS NULL)", name="signing_keys_key"),
        sqlite_autoincrement=True,
    )
    for status in ("active", "prepared"):
        op.create_index(
            f"signing_keys_one_{status}",
            "signing_keys",
            ["algorithm"],
            unique=True,
            sqlite_where=sa.text(f"status = '{status}'"),
            postgresql_where=sa.text(f"status = '{status}'"),
        )


def _create_revocations() -> None:
    op.create_table(
        "token_revocations",
        sa.Column("n", _number(), primary_key=True, autoincrement=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("revoked_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_by", sa.Text, nullable=False),
        sa.CheckConstraint("kind IN ('jti', 'txn', 'kid', 'sub')", name="token_revocations_kind"),
        sa.UniqueConstraint("kind", "value", name="token_revocations_name"),
        sqlite_autoincrement=True,
    )
    op.create_index("token_revocations_end", "token_revocations", ["expires_at"])
    op.create_index("token_revocations_by", "token_revocations", ["revoked_by"])


def _create_api_keys() -> None:
    op.create_table(
        "api_key_peppers",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "api_keys",
        sa.Column("n", _number(), primary_key=True, autoincrement=True),
        sa.Column("lookup", sa.Text, nullable=False, unique=True),
        sa.Column("environment", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("sources", sa.Text, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
        sa.Column("pepper", sa.Text, sa.ForeignKey("api_key_peppers.id"), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("last_used_at", sa.BigInteger),
        sa.Column("replaces", sa.Text, unique=True),
        sqlite_autoincrement=True,
    )
    op.create_index("api_keys_owner", "api_keys", ["owner"])


def downgrade() -> None:
    """Drop them; the keys and the revocations are lost, so every token dies with it."""
    for table in ("api_keys", "api_key_peppers", "token_state", "token_revocations", "signing_keys"):
        op.drop_table(table)
