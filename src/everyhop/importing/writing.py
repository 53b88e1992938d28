# SPDX-License-Identifier: Apache-2.0
"""A draft as the text of a policy, for people to read and go on with."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

from everyhop.policy.targets import APP_LABEL, DEFAULT_PORT
from everyhop.targets.yaml import Document, Noted, write_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

    from everyhop.importing.model import Draft, DraftRule, DraftService, DraftTest, Part

_WIDTH: Final = 110
_MAX_LISTED: Final = 200


def write_policy(draft: Draft, origin: str) -> bytes:
    """Return the text; ``origin`` says at its head what it was imported from."""
    document: dict[str, Any] = {"version": 1, "trust_domain": draft.trust_domain}
    if draft.issuers:
        document["users"] = {"issuers": draft.issuers}
    if draft.attributes:
        document["attributes"] = draft.attributes
    document["services"] = {name: _service(draft.services[name]) for name in sorted(draft.services)}
    for effect in ("allow", "deny"):
        rules = [rule for rule in draft.rules if rule.effect == effect]
        if rules:
            document[effect] = [Noted(_rule(rule), rule.note) for rule in rules]
    document["targets"] = {
        **draft.targets,
        "services": {
            name: _placement(draft.services[name])
            for name in sorted(draft.services)
            if draft.services[name].is_placed
        },
    }
    if not document["targets"]["services"]:
        del document["targets"]
    if draft.tests:
        document["tests"] = [_test(test) for test in draft.tests]
    text = write_yaml([Document(document)], _head(draft.parts, origin))
    return text.replace(b"\n---\n", b"\n", 1)


def _head(parts: Iterable[Part], origin: str) -> list[str]:
    lost = [part for part in parts if part.is_lost]
    assumed = [part for part in parts if not part.is_lost and part.fate.value == "assumed"]
    lines = [
        f"Imported by everyhop policy import --from {origin}. It opens nothing that the source does not open."
    ]
    for title, found in (("Not carried over as it was", lost), ("Assumed", assumed)):
        if found:
            lines += ["", f"{title}:"]
        for part in found[:_MAX_LISTED]:
            lines += textwrap.wrap(part.render(), _WIDTH, initial_indent="- ", subsequent_indent="  ")
        if len(found) > _MAX_LISTED:
            lines.append(f"- and {len(found) - _MAX_LISTED} more, which the command listed")
    return lines


def _service(service: DraftService) -> Any:
    entry: dict[str, Any] = {}
    if service.identity:
        entry["identity"] = service.identity
    if service.workload:
        entry["workload"] = service.workload
    if service.operations:
        entry["operations"] = service.operations
    if service.tcp is not None:
        entry["tcp"] = service.tcp
    return Noted(entry, service.note) if service.note else entry


def _names(names: tuple[str, ...] | None) -> Any:
    if names is None:
        return "any"
    return names[0] if len(names) == 1 else list(names)


def _rule(rule: DraftRule) -> dict[str, Any]:
    entry: dict[str, Any] = {"from": _names(rule.callers), "to": rule.target}
    if rule.operations is not None:
        entry["operations"] = list(rule.operations)
    if rule.needs_user:
        entry["user"] = "required"
    if rule.when:
        entry["when"] = rule.when
    return entry


def _placement(service: DraftService) -> dict[str, Any]:
    entry: dict[str, Any] = {"namespace": service.namespace, "service_account": service.account}
    if service.labels != {APP_LABEL: service.name}:
        entry["labels"] = dict(sorted(service.labels.items()))
    if service.port is not None and service.port != DEFAULT_PORT:
        entry["port"] = service.port
    return entry


def _test(test: DraftTest) -> dict[str, Any]:
    entry: dict[str, Any] = {"from": test.caller, "to": test.target}
    entry |= {"tcp": True} if test.call is None else {"call": test.call}
    if test.user is not None:
        entry["user"] = test.user
    if test.headers:
        entry["headers"] = test.headers
    return entry | {"expect": "allow" if test.allows else "deny"}
