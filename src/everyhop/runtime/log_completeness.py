# SPDX-License-Identifier: Apache-2.0
"""The completeness of the log of one state directory: its database, and authorities from outside of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.auditlog.completeness import Completeness, check_completeness
from everyhop.runtime.known_authorities import read_authorities

if TYPE_CHECKING:
    from everyhop.runtime.layout import StateLayout
    from everyhop.storage import SqlSealStore


def check_log(seals: SqlSealStore, layout: StateLayout) -> Completeness:
    """Return what is missing, lost or invented; reads the whole log once, at one moment.

    Raises Unavailable when the database does not answer, InputError when the file of authorities cannot be read.
    """
    authorities = read_authorities(layout.known_authorities)
    with seals.reading() as log:
        return check_completeness(
            log.lines(), log.seals(), log.certificates(), authorities, pruned=log.pruned()
        )
