# SPDX-License-Identifier: Apache-2.0
"""Runs migrations on the connection, and in the transaction, that ``migrate`` holds."""

from __future__ import annotations

from alembic import context

from everyhop.storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the transaction is the caller's
)
context.run_migrations()
