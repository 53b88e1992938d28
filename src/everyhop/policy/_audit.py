# SPDX-License-Identifier: Apache-2.0
"""The ``audit`` part: which services may read the records of the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.policy import _grammar as g
from everyhop.policy._fields import is_written, read_fields, read_items, read_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.policy._nodes import Node
    from everyhop.policy._problems import Problems


def read_audit(nodes: Iterable[Node], services: Mapping[str, object], problems: Problems) -> frozenset[str]:
    """Return the readers that the files of a policy name, together; each is a declared service, named once."""
    readers: set[str] = set()
    for node in nodes:
        fields = read_fields(node, g.AUDIT_KEYS, "audit", problems)
        if "readers" not in fields:
            if not is_written("readers", node):
                problems.add("missing-key", node.span, "audit: 'readers' missing")
            continue
        for index, item in enumerate(read_items(fields["readers"][1], "audit: readers", problems)):
            name = read_name(item, services, f"audit: readers[{index}]", problems)
            if name in readers:
                problems.add("duplicate", item.span, f"audit: readers: {name!r} is named twice")
            elif name is not None:
                readers.add(name)
    return frozenset(readers)
