# SPDX-License-Identifier: Apache-2.0
"""The ``services`` part: workloads, operations, probes, tcp, identities."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from everyhop.core.errors import InputError
from everyhop.policy import _grammar as g
from everyhop.policy._attributes import read_attributes
from everyhop.policy._body import read_body
from everyhop.policy._fields import read_fields, read_items, read_match, read_number, read_text
from everyhop.policy._nodes import Node, Table, Text, kind_of
from everyhop.policy.model import Operation, Protocol, Selector, Service, TokenMode
from everyhop.policy.routes import parse_grpc, parse_route, shape
from everyhop.spiffe.ids import SpiffeId, TrustDomain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.core.problems import Span
    from everyhop.policy._problems import Problems
    from everyhop.policy.facts import Value
    from everyhop.policy.vocabulary import Attribute

_CARRIED = frozenset(g.OPERATION_KEYS) - frozenset(g.ROUTE_KEYS)
_UNIX_FORMS = {
    "user": (g.ACCOUNT_NAME, "a user name"),
    "group": (g.ACCOUNT_NAME, "a group name"),
    "path": (g.ABSOLUTE_PATH, "an absolute path without '//'"),
    "sha256": (g.SHA256, "64 lower-case hex digits"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A service as far as it could be read; the names stay known when a part of it is wrong.

    That keeps one mistake from causing others: a rule may name an operation whose route does not parse.
    """

    name: str
    span: Span
    identity: tuple[str, Span] | None
    workload: tuple[frozenset[Selector], ...]
    operations: tuple[Operation, ...]
    probes: tuple[Operation, ...]
    operation_names: frozenset[str]
    tcp: int | None
    is_tcp: bool
    is_canary: bool
    attributes: Mapping[str, Value]


def read_services(
    node: Node,
    documents: Mapping[str, bytes],
    problems: Problems,
    attributes: Mapping[str, Attribute] = MappingProxyType({}),
) -> dict[str, Draft]:
    """Read the mapping of services of one file.

    ``documents`` are the JSON files beside it, ``attributes`` those that the policy declares for services.
    """
    if not isinstance(node, Table):
        problems.add("type", node.span, f"services: expected a mapping, found {kind_of(node)}")
        return {}
    drafts: dict[str, Draft] = {}
    for key, value in node.entries:
        if key.value in g.RESERVED_SERVICE_NAMES:
            problems.add("name", key.span, f"{key.value!r} has a meaning in rules and cannot name a service")
        elif re.fullmatch(g.SERVICE_NAME, key.value, re.ASCII):
            drafts[key.value] = _read_service(key, value, documents, attributes, problems)
        else:
            message = f"{key.value[:80]!r} cannot name a service"
            problems.add(
                "name", key.span, message, "lower-case letters, digits and '-', a letter first, at most 63"
            )
    return drafts


def _read_service(
    key: Text,
    node: Node,
    documents: Mapping[str, bytes],
    attributes: Mapping[str, Attribute],
    problems: Problems,
) -> Draft:
    name, where = key.value, f"service {key.value!r}"
    fields = read_fields(node, g.SERVICE_KEYS, where, problems)
    operations = _read_operations(fields, documents, where, problems)
    probes = _read_probes(fields, where, problems)
    _check_shapes((*operations.values(), *probes), where, problems)
    is_tcp, tcp = "tcp" in fields, None
    if is_tcp:
        tcp = read_number(fields["tcp"][1], 1, g.MAX_PORT, f"{where}: tcp", problems)
        for other in ("operations", "probes"):
            if other in fields:
                message = f"{where}: a tcp service has no {other}"
                problems.add("conflict", fields[other][0].span, message, "remove 'tcp', or these")
    identity = None
    if "identity" in fields:
        text = read_text(fields["identity"][1], f"{where}: identity", problems)
        identity = (text, fields["identity"][1].span) if text is not None else None
    is_canary = _read_canary(fields, where, problems)
    return Draft(
        name=name,
        span=key.span,
        identity=identity,
        workload=_read_workload(fields, name, where, problems),
        operations=tuple(op for _, op in sorted(operations.items()) if op is not None),
        probes=tuple(op for op in probes if op is not None),
        operation_names=frozenset(operations),
        tcp=tcp,
        is_tcp=is_tcp,
        is_canary=is_canary,
        attributes=read_attributes(fields["attributes"][1], attributes, f"{where}: attributes", problems)
        if "attributes" in fields
        else MappingProxyType({}),
    )


def _read_canary(fields: Mapping[str, tuple[Text, Node]], where: str, problems: Problems) -> bool:
    """Read whether a service is one that nobody may ever call; then there is nothing of it but a name."""
    if "canary" not in fields:
        return False
    expected = "true (leave the key out otherwise)"
    read_match(fields["canary"][1], "true", f"{where}: canary", expected, problems)
    for other in g.NOT_OF_CANARIES:
        if other in fields:
            message = f"{where}: a canary has no {other}: it does not exist, and nobody calls it"
            problems.add("conflict", fields[other][0].span, message, "remove 'canary', or this")
    return True


def _read_operations(
    fields: Mapping[str, tuple[Text, Node]], documents: Mapping[str, bytes], where: str, problems: Problems
) -> dict[str, Operation | None]:
    if "operations" not in fields:
        return {}
    node = fields["operations"][1]
    if not isinstance(node, Table) or not node.entries:
        found = "an empty one" if isinstance(node, Table) else kind_of(node)
        problems.add(
            "type", node.span, f"{where}: operations: expected a mapping of names to routes, found {found}"
        )
        return {}
    operations: dict[str, Operation | None] = {}
    for key, value in node.entries:
        if key.value == g.ALL or not re.fullmatch(g.OPERATION_NAME, key.value, re.ASCII):
            hint = "letters, digits, '_' and '-', at most 64; not 'all'"
            problems.add("name", key.span, f"{where}: {key.value[:80]!r} cannot name an operation", hint)
        else:
            at = f"{where}: operation {key.value!r}"
            operations[key.value] = _read_operation(key.value, key.span, value, documents, at, problems)
    return operations


def _read_probes(
    fields: Mapping[str, tuple[Text, Node]], where: str, problems: Problems
) -> tuple[Operation | None, ...]:
    if "probes" not in fields:
        return ()
    probes = []
    for index, item in enumerate(read_items(fields["probes"][1], f"{where}: probes", problems)):
        name = f"probes[{index}]"
        probe = _read_operation(name, item.span, item, {}, f"{where}: {name}", problems)
        if isinstance(item, Table):
            for key, _ in item.entries:
                if key.value in _CARRIED:
                    message = f"{where}: a probe has no {key.value!r}: every declared service may call it"
                    problems.add("conflict", key.span, message, "declare an operation")
        if probe and probe.protocol is Protocol.WEBSOCKET:
            problems.add(
                "value", item.span, f"{where}: a probe cannot be a WebSocket", "declare an operation"
            )
        probes.append(probe)
    return tuple(probes)


def _read_operation(
    name: str, span: Span, node: Node, documents: Mapping[str, bytes], where: str, problems: Problems
) -> Operation | None:
    form, value = "route", node
    fields: Mapping[str, tuple[Text, Node]] = {}
    if isinstance(node, Table):
        fields = read_fields(node, g.OPERATION_KEYS, where, problems)
        forms = [key for key in g.ROUTE_KEYS if key in fields]
        if len(forms) != 1:
            if len(forms) > 1 or all(key.value in _CARRIED for key, _ in node.entries):
                problems.add("value", node.span, f"{where}: give exactly one of route, grpc and websocket")
            return None
        form, value = forms[0], fields[forms[0]][1]
    token = _read_token(fields, where, problems)
    once = _read_once(fields, token, where, problems)
    body = read_body(fields["body"][1], documents, where, problems) if "body" in fields else None
    if body is not None and form != "route":
        problems.add("conflict", fields["body"][0].span, f"{where}: a body schema belongs to a route")
    leaves_resource = _read_resource(fields, form, where, problems)
    text = read_text(value, where, problems)
    if text is None:
        return None
    try:
        if form == "grpc":
            route, protocol = parse_grpc(text), Protocol.GRPC
        elif form == "websocket":
            route, protocol = parse_route(f"GET {text}"), Protocol.WEBSOCKET
        else:
            route, protocol = parse_route(text), Protocol.HTTP
    except InputError as error:
        problems.add("route", value.span, f"{where}: {error.message}", error.hint)
        return None
    return Operation(
        name=name,
        route=route,
        protocol=protocol,
        token=token,
        once=once,
        body=body,
        leaves_resource=leaves_resource,
        span=span,
    )


def _read_resource(
    fields: Mapping[str, tuple[Text, Node]], form: str, where: str, problems: Problems
) -> bool:
    """Read who checks conditions on resources; only where the SDK sees the answer can forgetting it be noticed."""
    if "resource" not in fields:
        return False
    key, node = fields["resource"]
    expected = "application (leave the key out otherwise)"
    is_left = read_match(node, "application", f"{where}: resource", expected, problems) is not None
    if is_left and form != "route":
        problems.add("conflict", key.span, f"{where}: resource: application belongs to a route")
    return is_left


def _read_token(fields: Mapping[str, tuple[Text, Node]], where: str, problems: Problems) -> TokenMode:
    if "token" not in fields:
        return TokenMode.NONE
    expected = "one of none, required and operation"
    text = read_match(fields["token"][1], "none|required|operation", f"{where}: token", expected, problems)
    return TokenMode.NONE if text is None else TokenMode(text)


def _read_once(
    fields: Mapping[str, tuple[Text, Node]], token: TokenMode, where: str, problems: Problems
) -> bool:
    if "once" not in fields:
        return False
    key, node = fields["once"]
    is_once = read_match(node, "true|false", f"{where}: once", "true or false", problems) == "true"
    if is_once and token is TokenMode.NONE:
        problems.add("conflict", key.span, f"{where}: once needs a token", "add token: required")
    return is_once


def _check_shapes(operations: tuple[Operation | None, ...], where: str, problems: Problems) -> None:
    seen: dict[tuple[str, ...], Operation] = {}
    for operation in operations:
        if operation is None:
            continue
        first = seen.setdefault(shape(operation.route), operation)
        if first is not operation:
            message = f"{where}: {operation.name!r} and {first.name!r} both are {first.route.method} {first.route.template}"
            problems.add("duplicate-route", operation.span, message, "a request must belong to one operation")


def _read_workload(
    fields: Mapping[str, tuple[Text, Node]], name: str, where: str, problems: Problems
) -> tuple[frozenset[Selector], ...]:
    if "workload" not in fields:
        return ()
    found: dict[tuple[Selector, ...], Node] = {}
    for item in read_items(fields["workload"][1], f"{where}: workload", problems):
        selectors = _read_alternative(item, name, f"{where}: workload", problems)
        if selectors and found.setdefault(tuple(sorted(selectors)), item) is not item:
            problems.add("duplicate", item.span, f"{where}: workload: the same alternative twice")
    return tuple(frozenset(alternative) for alternative in sorted(found))


def _read_alternative(node: Node, name: str, where: str, problems: Problems) -> set[Selector]:
    selectors: set[Selector] = set()
    fields = read_fields(node, g.WORKLOAD_KEYS, where, problems)
    if isinstance(node, Table) and not node.entries:
        problems.add(
            "empty", node.span, f"{where}: an alternative without selectors would match every process"
        )
    if "run" in fields:
        read_match(fields["run"][1], "true", f"{where}: run", "true (leave the key out otherwise)", problems)
        selectors.add(Selector(type="run", value=name))
    if "unix" in fields:
        unix = fields["unix"][1]
        if isinstance(unix, Table) and not unix.entries:
            problems.add("empty", unix.span, f"{where}: unix: give at least one of " + ", ".join(g.UNIX_KEYS))
        for kind, (_, value) in read_fields(unix, g.UNIX_KEYS, f"{where}: unix", problems).items():
            text = _read_unix(kind, value, f"{where}: unix.{kind}", problems)
            if text is not None:
                selectors.add(Selector(type="unix", value=f"{kind}:{text}"))
    return selectors


def _read_unix(kind: str, node: Node, where: str, problems: Problems) -> str | None:
    if kind in {"uid", "gid"}:
        number = read_number(node, 0, g.MAX_ID_NUMBER, where, problems)
        return None if number is None else str(number)
    pattern, expected = _UNIX_FORMS[kind]
    text = read_match(node, pattern, where, expected, problems)
    if text is not None and kind == "path" and {".", ".."} & set(text.split("/")):
        problems.add("value", node.span, f"{where}: {text[:60]!r} has a dot segment", "write the real path")
        return None
    return text


def build_services(
    drafts: Mapping[str, Draft], domain: TrustDomain, identity: tuple[str, Span] | None, problems: Problems
) -> dict[str, Service]:
    """Give each draft its SPIFFE ID; templates that give no valid or no unique ID are noted."""
    services: dict[str, Service] = {}
    owners: dict[str, str] = {}
    for name, draft in sorted(drafts.items()):
        template, span = draft.identity or identity or (g.DEFAULT_IDENTITY, draft.span)
        spiffe_id = _expand(template, span, name, domain, problems)
        if spiffe_id is None:
            continue
        owner = owners.setdefault(str(spiffe_id), name)
        if owner != name:
            message = f"services {owner!r} and {name!r} would both be {spiffe_id}"
            problems.add("identity", span, message, "use {service} in the template")
            continue
        services[name] = Service(
            name=name,
            spiffe_id=spiffe_id,
            workload=draft.workload,
            operations=draft.operations,
            probes=draft.probes,
            tcp=draft.tcp,
            attributes=draft.attributes,
            is_canary=draft.is_canary,
            span=draft.span,
        )
    return services


def _expand(template: str, span: Span, name: str, domain: TrustDomain, problems: Problems) -> SpiffeId | None:
    unknown = next((p for p in re.findall(r"\{([^{}]*)\}", template) if p != "service"), None)
    if unknown is not None:
        message = f"identity: the placeholder {{{unknown[:40]}}} is not supported yet in this version"
        problems.add("not-supported-yet", span, message, "use {service}, or write the text out")
        return None
    path = template.replace("{service}", name)
    if f"{path}/".startswith(g.RESERVED_IDENTITY):
        problems.add(
            "identity", span, f"identity: paths under {g.RESERVED_IDENTITY} belong to everyhop itself"
        )
        return None
    try:
        if not path.startswith("/"):
            raise InputError(
                f"{template[:60]!r} does not start with /", hint=f"for example {g.DEFAULT_IDENTITY}"
            )
        return SpiffeId.parse(f"spiffe://{domain}{path}")
    except InputError as error:
        problems.add("identity", span, f"identity: {error.message}", error.hint)
        return None
