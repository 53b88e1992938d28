# SPDX-License-Identifier: Apache-2.0
"""The tables.  A change here comes with a migration; a test compares the two.

Moments are integers, microseconds since 1970 in UTC: they sort, they compare, and both engines agree on them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterable

HEAD: Final = "0003"  # the newest migration; tests hold it to what the migrations directory says

metadata = sa.MetaData()

# SQLite numbers rows by itself only in a column of exactly this type.
_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Moment = sa.BigInteger
# Compared by code points on both engines, whatever language a database sorts by.
_Id = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

authorities = sa.Table(
    "authorities",
    metadata,
    sa.Column("n", _Number, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("public", sa.LargeBinary, nullable=False),
    sa.Column("wrapped_key", sa.LargeBinary),
    sa.Column("created_at", _Moment, nullable=False),
    sa.Column("not_before", _Moment, nullable=False),
    sa.Column("not_after", _Moment, nullable=False),
    sa.Column("published_sequence", sa.BigInteger, nullable=False),
    sa.Column("activated_at", _Moment),
    sa.Column("retired_at", _Moment),
    sa.Column("signed_until", _Moment),
    sa.CheckConstraint("kind IN ('x509', 'jwt')", name="authorities_kind"),
    sa.CheckConstraint("status IN ('prepared', 'active', 'old')", name="authorities_status"),
    # A key that signs nothing any more is not kept; one that signs has to be there.
    sa.CheckConstraint("(status = 'old') = (wrapped_key IS NULL)", name="authorities_key"),
    sqlite_autoincrement=True,
)
# The last line of defence against two processes that rotate at once.
sa.Index(
    "authorities_one_active",
    authorities.c.kind,
    unique=True,
    sqlite_where=sa.text("status = 'active'"),
    postgresql_where=sa.text("status = 'active'"),
)
sa.Index(
    "authorities_one_prepared",
    authorities.c.kind,
    unique=True,
    sqlite_where=sa.text("status = 'prepared'"),
    postgresql_where=sa.text("status = 'prepared'"),
)

bundle_state = sa.Table(
    "bundle_state",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.CheckConstraint("one = 1", name="bundle_state_one"),
)

snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("n", _Number, primary_key=True, autoincrement=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("saved_at", _Moment, nullable=False),
    # Grows whenever a snapshot comes into force (again): the one with the highest is the latest.
    sa.Column("applied", sa.BigInteger, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("snapshots_applied", snapshots.c.applied, unique=True)

records = sa.Table(
    "records",
    metadata,
    # The place in the log, from 1 without gaps: given under the lock of ``log_head``, never by the engine.
    sa.Column("n", _Number, primary_key=True, autoincrement=False),
    sa.Column("id", _Id, nullable=False, unique=True),
    sa.Column("producer", sa.Text, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("time", _Moment, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("caller", sa.Text),
    sa.Column("target", sa.Text),
    sa.Column("decision", sa.Text),
    sa.Column("rule", sa.Text),
    sa.Column("subject", sa.Text),
    # The hash of the line as it was when it was sealed: it names the record that was altered since.
    sa.Column("leaf", sa.LargeBinary, nullable=False),
    # The whole record as the codec writes it, which is the leaf of the log's tree; the columns above only find it.
    sa.Column("line", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("producer", "seq", name="records_place"),
)
sa.Index("records_time", records.c.time)
sa.Index("records_target", records.c.target, records.c.n)
sa.Index("records_caller", records.c.caller, records.c.n)
sa.Index("records_rule", records.c.rule, records.c.n)
sa.Index("records_subject", records.c.subject, records.c.n)
sa.Index(
    "records_denied",
    records.c.n,
    sqlite_where=sa.text("decision = 'deny'"),
    postgresql_where=sa.text("decision = 'deny'"),
)

# The tree over the log.  ``frontier`` is what the room tlog needs to go on from ``size`` leaves.
log_head = sa.Table(
    "log_head",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("frontier", sa.LargeBinary, nullable=False),
    sa.CheckConstraint("one = 1", name="log_head_one"),
)

# Full tiles only (256 hashes); ``root`` is the hash above them.  They stay when records go.
log_tiles = sa.Table(
    "log_tiles",
    metadata,
    sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("n", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hashes", sa.LargeBinary, nullable=False),
    sa.Column("root", sa.LargeBinary, nullable=False),
)

# Numbers of producers whose records are gone: what is delivered again is recognised for ever.
log_pruned = sa.Table(
    "log_pruned",
    metadata,
    sa.Column("producer", sa.Text, primary_key=True),
    sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("last", sa.BigInteger, nullable=False),
)

log_checkpoints = sa.Table(
    "log_checkpoints",
    metadata,
    sa.Column("origin", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("root", sa.LargeBinary, nullable=False),
    sa.Column("signed_at", _Moment, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
)

# What producers signed: records ``first`` to ``last`` of one producer, with the certificate of the signer.
log_seals = sa.Table(
    "log_seals",
    metadata,
    sa.Column("producer", sa.Text, primary_key=True),
    sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("last", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("previous", sa.LargeBinary, nullable=False),
    sa.Column("certificate", sa.Text, nullable=False),
    sa.Column("signed_at", _Moment, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
    sa.Column("marks", sa.LargeBinary, nullable=False),
)

log_certificates = sa.Table(
    "log_certificates",
    metadata,
    sa.Column("thumbprint", sa.Text, primary_key=True),
    sa.Column("chain", sa.LargeBinary, nullable=False),
    sa.Column("first_seen", _Moment, nullable=False),
)

# What stands for a person in records.  Without its row, a pseudonym is nobody's.
pseudonyms = sa.Table(
    "pseudonyms",
    metadata,
    sa.Column("pseudonym", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("lookup", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sa.Column("created_at", _Moment, nullable=False),
)

# Who reads the log from its beginning to its end, and how far: exporters, detection.
consumers = sa.Table(
    "consumers",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("moved_at", _Moment, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
)

# One of several servers does what only one may do at a time.
leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("until", _Moment, nullable=False),
)

blocks = sa.Table(
    "blocks",
    metadata,
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("since", _Moment, nullable=False),
    sa.Column("until", _Moment),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("finding", sa.Text),
    sa.CheckConstraint("mode IN ('block', 'quarantine')", name="blocks_mode"),
)
sa.Index("blocks_until", blocks.c.until)

block_state = sa.Table(
    "block_state",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.CheckConstraint("one = 1", name="block_state_one"),
)

detector_state = sa.Table(
    "detector_state",
    metadata,
    sa.Column("detector", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
    sa.Column("moved_at", _Moment, nullable=False),
)

# Things that nobody has a reason to use.  ``mark`` recognises one without being one.
canaries = sa.Table(
    "canaries",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("mark", sa.LargeBinary, unique=True),
    sa.Column("response", sa.Text, nullable=False),
    sa.Column("created_at", _Moment, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("ended_at", _Moment),
    sa.CheckConstraint("kind IN ('api-key', 'secret', 'service')", name="canaries_kind"),
    sa.CheckConstraint("response IN ('alert', 'block', 'quarantine')", name="canaries_response"),
)

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

signing_keys = sa.Table(
    "signing_keys",
    metadata,
    sa.Column("n", _Number, primary_key=True, autoincrement=True),
    sa.Column("kid", sa.Text, nullable=False, unique=True),
    sa.Column("algorithm", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("public", sa.LargeBinary, nullable=False),
    sa.Column("wrapped_key", sa.LargeBinary),
    sa.Column("created_at", _Moment, nullable=False),
    sa.Column("published_sequence", sa.BigInteger, nullable=False),
    sa.Column("activated_at", _Moment),
    sa.Column("retired_at", _Moment),
    sa.CheckConstraint("status IN ('prepared', 'active', 'retained')", name="signing_keys_status"),
    sa.CheckConstraint("(status = 'retained') = (wrapped_key IS NULL)", name="signing_keys_key"),
    sqlite_autoincrement=True,
)
# At most two that may sign of one algorithm, whoever rotates.
sa.Index(
    "signing_keys_one_active",
    signing_keys.c.algorithm,
    unique=True,
    sqlite_where=sa.text("status = 'active'"),
    postgresql_where=sa.text("status = 'active'"),
)
sa.Index(
    "signing_keys_one_prepared",
    signing_keys.c.algorithm,
    unique=True,
    sqlite_where=sa.text("status = 'prepared'"),
    postgresql_where=sa.text("status = 'prepared'"),
)

token_revocations = sa.Table(
    "token_revocations",
    metadata,
    sa.Column("n", _Number, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("revoked_at", _Moment, nullable=False),
    sa.Column("expires_at", _Moment, nullable=False),
    sa.Column("revoked_by", sa.Text, nullable=False),
    sa.CheckConstraint("kind IN ('jti', 'txn', 'kid', 'sub')", name="token_revocations_kind"),
    sa.UniqueConstraint("kind", "value", name="token_revocations_name"),
    sqlite_autoincrement=True,
)
sa.Index("token_revocations_end", token_revocations.c.expires_at)
sa.Index("token_revocations_by", token_revocations.c.revoked_by)

# Grows with every change that verifiers have to hear of: keys, revocations, API keys that end.
token_state = sa.Table(
    "token_state",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.CheckConstraint("one = 1", name="token_state_one"),
)

api_key_peppers = sa.Table(
    "api_key_peppers",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sa.Column("created_at", _Moment, nullable=False),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("n", _Number, primary_key=True, autoincrement=True),
    sa.Column("lookup", sa.Text, nullable=False, unique=True),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),  # separated by spaces, sorted
    sa.Column("sources", sa.Text, nullable=False),  # networks, separated by spaces; empty for anywhere
    sa.Column("mac", sa.LargeBinary, nullable=False),
    sa.Column("pepper", sa.Text, sa.ForeignKey("api_key_peppers.id"), nullable=False),
    sa.Column("created_at", _Moment, nullable=False),
    sa.Column("expires_at", _Moment, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("revoked_at", _Moment),
    sa.Column("last_used_at", _Moment),
    # The key that this one replaces; unique, so that no key is rotated twice.
    sa.Column("replaces", sa.Text, unique=True),
    sqlite_autoincrement=True,
)
sa.Index("api_keys_owner", api_keys.c.owner)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Turn an aware moment into microseconds since 1970, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def read_moments(row: sa.RowMapping, names: Iterable[str]) -> dict[str, Any]:
    """Return columns of moments as aware moments; None stays None."""
    return {name: None if row[name] is None else from_micros(row[name]) for name in names}


def write_moments(entry: object, names: Iterable[str]) -> dict[str, Any]:
    """Return attributes that are moments as columns; None stays None."""
    moments = {name: getattr(entry, name) for name in names}
    return {name: None if moment is None else to_micros(moment) for name, moment in moments.items()}


def from_micros(micros: int) -> datetime:
    """Turn microseconds since 1970 into an aware moment in UTC, exactly."""
    return _EPOCH + timedelta(microseconds=micros)
