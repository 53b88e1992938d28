# SPDX-License-Identifier: Apache-2.0
"""A snapshot as bytes, with the positions of its parts, to store it and to send it to agents.

Format: JSON ``{"format": 1, "hash": H, "policy": CANONICAL, "spans": {POINTER: [FILE, LINE, COLUMN]}}``
where the bytes of ``policy`` are exactly the canonical form.  Reading runs the parser's own checks and then
compares the hash of what came out, so a snapshot that decodes means what its hash names.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final

import msgspec

from everyhop.core.collector import collector_paused
from everyhop.core.errors import InputError, PolicyError
from everyhop.core.problems import Span
from everyhop.policy._nodes import Items, Node, Table, Text
from everyhop.policy._problems import Problems
from everyhop.policy.canonical import content_hash
from everyhop.policy.model import RuleEffect, Snapshot
from everyhop.policy.parse import build_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ENCODED_BYTES: Final = 64 * 1024 * 1024
_FORMAT: Final = 1
_UNKNOWN: Final = ("snapshot", 1, 1)

_Place = tuple[str, int, int]


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    hash: str
    policy: msgspec.Raw
    spans: dict[str, _Place] = {}


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return the snapshot as JSON bytes, deterministic for the same text in the same files."""
    spans = {pointer: (span.file, span.line, span.column) for pointer, span in _spans(snapshot)}
    envelope = _Envelope(_FORMAT, snapshot.hash, msgspec.Raw(snapshot.canonical), spans)
    return msgspec.json.encode(envelope)


def decode_snapshot(data: bytes) -> Snapshot:
    """Return the snapshot of :func:`encode_snapshot`; at most 64 MiB.

    Raises InputError when the bytes are no such snapshot or its content is not what its hash says.
    Whether that hash is the expected one is for the caller to compare.
    """
    if len(data) > MAX_ENCODED_BYTES:
        raise InputError(f"a snapshot has at most {MAX_ENCODED_BYTES} bytes")
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
        if envelope.format != _FORMAT:
            raise InputError(
                f"snapshot format {envelope.format} is not known", hint="upgrade the reading side first"
            )
        if not hmac.compare_digest(envelope.hash.encode(), content_hash(bytes(envelope.policy)).encode()):
            raise InputError("the snapshot does not match its hash")
        with collector_paused():
            document = _to_document(msgspec.json.decode(envelope.policy), envelope.spans)
            snapshot = build_snapshot([document], Problems())
    except msgspec.MsgspecError as error:
        raise InputError("this is not a snapshot") from error
    except RecursionError as error:
        raise InputError("this is not a snapshot: too deep") from error
    except PolicyError as error:
        raise InputError(f"the snapshot holds no valid policy: {error.problems[0].message}") from error
    if bytes(envelope.policy) != snapshot.canonical:
        raise InputError("the snapshot is not in canonical form")
    return snapshot


def _spans(snapshot: Snapshot) -> Iterator[tuple[str, Span]]:
    for name, service in snapshot.services.items():
        yield f"services.{name}", service.span
        for operation in service.operations:
            yield f"services.{name}.operations.{operation.name}", operation.span
        for probe in service.probes:
            yield f"services.{name}.{probe.name}", probe.span
    for effect in RuleEffect:
        for index, rule in enumerate(rule for rule in snapshot.rules if rule.effect is effect):
            yield f"{effect}[{index}]", rule.span
    for index, edge in enumerate(snapshot.shadow_edges):
        yield f"shadow[{index}]", edge.span
    for name, role in snapshot.roles.items():
        yield f"roles.{name}", role.span
    for index, test in enumerate(snapshot.tests):
        yield f"tests[{index}]", test.span
    for index, issuer in enumerate(snapshot.user_issuers):
        yield f"users.issuers[{index}]", issuer.span
    if snapshot.detection.span is not None:
        yield "detect", snapshot.detection.span
    if snapshot.targets.span is not None:
        yield "targets", snapshot.targets.span


def _to_document(value: Any, spans: dict[str, _Place]) -> Node:
    """Return the nodes of a document; each has the place of the nearest pointer above it that has one."""
    return _to_node(value, "", spans, _branches(spans), _UNKNOWN)


def _branches(spans: dict[str, _Place]) -> set[str]:
    """Return every pointer that is followed by a further step in another one."""
    found: set[str] = {""}
    for pointer in spans:
        branch = pointer
        while branch:
            branch = branch[: max(branch.rfind("."), branch.rfind("["), 0)]
            if branch in found:
                break
            found.add(branch)
    return found


def _to_node(value: Any, pointer: str, spans: dict[str, _Place], branches: set[str], outer: _Place) -> Node:
    place = spans.get(pointer, outer)
    if pointer not in branches:  # most of a policy: no place of its own below, so no pointers to spell out
        return _plain(value, place)
    if isinstance(value, dict):
        dot = "." if pointer else ""
        entries = []
        for key, item in value.items():
            node = _to_node(item, f"{pointer}{dot}{key}", spans, branches, place)
            entries.append((Text(key, node.file, node.line, node.column), node))
        return Table(tuple(entries), *place)
    if isinstance(value, list):
        items = [
            _to_node(item, f"{pointer}[{index}]", spans, branches, place) for index, item in enumerate(value)
        ]
        return Items(tuple(items), *place)
    return _plain(value, place)


def _plain(value: Any, place: _Place) -> Node:
    if isinstance(value, str):
        return Text(value, *place)
    if isinstance(value, dict):
        return Table(tuple([(Text(key, *place), _plain(item, place)) for key, item in value.items()]), *place)
    if isinstance(value, list):
        return Items(tuple([_plain(item, place) for item in value]), *place)
    if isinstance(value, bool):
        return Text("true" if value else "false", *place)
    if isinstance(value, int):
        return Text(str(value), *place)
    raise InputError("this is not a snapshot: only text, numbers, lists and mappings belong there")
