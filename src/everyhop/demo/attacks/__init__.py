# SPDX-License-Identifier: Apache-2.0
"""The attacks of the demo, by theme; each really sends bytes and tells what it saw."""

from everyhop.demo.attacks import (
    blocked,
    edge,
    egress,
    facts,
    framing,
    headers,
    identity,
    load,
    local,
    log,
    meshes,
    operations,
    paths,
    tokens,
    transport,
)
from everyhop.demo.model import Attempt

__all__ = ["all_attacks"]


def all_attacks() -> list[Attempt]:
    """Return every attack in the order of the table; those that change the policy come last."""
    rooms = (
        identity,
        operations,
        facts,
        tokens,
        edge,
        paths,
        headers,
        framing,
        transport,
        egress,
        local,
        blocked,
        log,
        meshes,
        load,
    )
    return [attempt for room in rooms for attempt in room.attacks()]
