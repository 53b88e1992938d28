# SPDX-License-Identifier: Apache-2.0
"""The ``targets`` part: where services stand in the systems that the policy is compiled to."""

from __future__ import annotations

import ipaddress
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from everyhop.core.durations import parse_duration
from everyhop.policy import _grammar as g
from everyhop.policy._fields import (
    has_keys,
    read_fields,
    read_items,
    read_match,
    read_name,
    read_number,
    read_text,
)
from everyhop.policy._nodes import Table, kind_of
from everyhop.policy.targets import (
    ACCEPT,
    ACCEPTABLE,
    DEFAULT_CLUSTER_DOMAIN,
    DEFAULT_NAMESPACE,
    DEFAULTS,
    ELSEWHERE,
    OPTIONS,
    WITH,
    Egress,
    Gateway,
    Option,
    OptionKind,
    OptionValue,
    Placement,
    TargetSettings,
    TokenIssuer,
    default_placement,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.policy._nodes import Node, Text
    from everyhop.policy._problems import Problems

    _Fields = Mapping[str, tuple[Text, Node]]

_PATTERNS: Final = {
    OptionKind.NAME: (g.DNS_LABEL, "a DNS label"),
    OptionKind.DOMAIN: (g.DNS_NAME, "a DNS name"),
    OptionKind.TEXT: (g.OPTION_TEXT, "plain text without white space and quotes"),
    OptionKind.PATH: (g.OPTION_PATH, "an absolute path"),
    OptionKind.NAMES: (g.DNS_NAME, "a DNS name"),
    OptionKind.TEXTS: (g.OPTION_TEXT, "plain text without white space and quotes"),
}

_KNOWN: Final = {WITH: (*OPTIONS, *ELSEWHERE), ACCEPT: ACCEPTABLE}


class TargetsReader:
    """Reads the one chapter ``targets``; ``services`` are the declared ones."""

    def __init__(self, services: Mapping[str, object], problems: Problems) -> None:
        self._services = services
        self._problems = problems

    def read(self, nodes: list[Node]) -> TargetSettings:
        """Return the chapter of the file that has it, or the defaults."""
        if not nodes:
            return DEFAULTS
        first, *others = nodes
        for node in others:
            message = "targets stands in two files"
            self._problems.add("duplicate", node.span, message, f"it is one chapter; first at {first.span}")
        fields = read_fields(first, (*g.TARGETS_KEYS, *OPTIONS), "targets", self._problems)
        namespace = self._match(fields, "namespace", "targets", OptionKind.NAME) or DEFAULT_NAMESPACE
        domain = self._match(fields, "cluster_domain", "targets", OptionKind.DOMAIN)
        settings = TargetSettings(
            trust_domain=self._match(fields, "trust_domain", "targets", OptionKind.DOMAIN),
            cluster_domain=domain or DEFAULT_CLUSTER_DOMAIN,
            namespace=namespace,
            placements=self._placements(fields, namespace),
            gateway=self._gateway(fields),
            tokens=self._tokens(fields),
            probe_networks=self._networks(fields),
            egress=self._egress(fields),
            options=self._options(fields),
            span=first.span,
        )
        self._check_accounts(settings, first)
        return settings

    # -- services

    def _placements(self, fields: _Fields, namespace: str) -> Mapping[str, Placement]:
        found = {}
        for key, node in self._entries(fields, "services"):
            where = f"targets: services: {key.value[:80]}"
            name = read_name(key, self._services, "targets: services", self._problems)
            place = self._placement(node, where, default_placement(key.value, namespace))
            if name is not None:
                found[name] = place
        return MappingProxyType(found)

    def _placement(self, node: Node, where: str, default: Placement) -> Placement:
        fields = read_fields(node, g.PLACEMENT_KEYS, where, self._problems)
        return Placement(
            namespace=self._match(fields, "namespace", where, OptionKind.NAME) or default.namespace,
            service_account=self._match(fields, "service_account", where, OptionKind.DOMAIN)
            or default.service_account,
            labels=self._labels(fields, where) or default.labels,
            port=self._number(fields, "port", where, 1, g.MAX_PORT) or default.port,
            host=self._text(fields, "host", where, g.HOST_AND_PORT, "HOST:PORT"),
            image=self._match(fields, "image", where, OptionKind.TEXT),
            timeout=self._seconds(fields, "timeout", where),
            retries=self._number(fields, "retries", where, 0, g.MAX_RETRIES),
            span=node.span,
        )

    def _labels(self, fields: _Fields, where: str) -> Mapping[str, str] | None:
        if "labels" not in fields:
            return None
        node = fields["labels"][1]
        if not isinstance(node, Table) or not node.entries:
            message = f"{where}: labels: expected a mapping, found {kind_of(node)}"
            self._problems.add("type", node.span, message)
            return None
        labels = {}
        for key, value in node.entries:
            name = read_match(key, g.LABEL_KEY, f"{where}: labels", "a label's key", self._problems)
            text = read_match(value, g.LABEL_VALUE, f"{where}: labels", "a label's value", self._problems)
            if name is not None and text is not None:
                labels[name] = text
        return MappingProxyType(labels)

    def _check_accounts(self, settings: TargetSettings, node: Node) -> None:
        """Refuse two services that a mesh or a network could not tell apart: one would have the other's rights."""
        accounts: dict[tuple[str, str], str] = {}
        for name in sorted(self._services):
            place = settings.place(name)
            other = accounts.setdefault((place.namespace, place.service_account), name)
            if other != name:
                message = (
                    f"targets: {name!r} and {other!r} have the same service account in {place.namespace!r}"
                )
                hint = "a mesh knows a service by its account"
                self._problems.add("same-account", place.span or node.span, message, hint)
        gateway = settings.gateway
        if gateway is not None:
            taken = accounts.get((gateway.namespace, gateway.service_account))
            if taken is not None:
                message = f"targets: gateway: {taken!r} has the same service account in {gateway.namespace!r}"
                hint = "whoever comes from outside would have its rights, and it theirs"
                self._problems.add("same-account", node.span, message, hint)
        self._check_labels(settings, node)

    def _check_labels(self, settings: TargetSettings, node: Node) -> None:
        seen: dict[tuple[str, frozenset[tuple[str, str]]], str] = {}
        sizes: dict[str, set[int]] = {}
        for name in sorted(self._services):
            place = settings.place(name)
            labels = frozenset(place.labels.items())
            other = seen.setdefault((place.namespace, labels), name)
            sizes.setdefault(place.namespace, set()).add(len(labels))
            if other != name:
                self._note_labels(name, other, place, node)
        for (namespace, labels), name in seen.items():
            if len(sizes[namespace]) == 1:
                continue
            for (other_namespace, fewer), other in seen.items():
                if other_namespace == namespace and fewer < labels:
                    self._note_labels(name, other, settings.place(name), node)

    def _note_labels(self, name: str, other: str, place: Placement, node: Node) -> None:
        message = f"targets: the labels of {other!r} select the pods of {name!r} too"
        hint = "give each service a label of its own"
        self._problems.add("same-labels", place.span or node.span, message, hint)

    # -- around them

    def _gateway(self, fields: _Fields) -> Gateway | None:
        if "gateway" not in fields:
            return None
        where, node = "targets: gateway", fields["gateway"][1]
        inner = read_fields(node, g.GATEWAY_KEYS, where, self._problems)
        if not has_keys(inner, ("namespace", "service_account"), node, where, self._problems):
            return None
        account = self._match(inner, "service_account", where, OptionKind.DOMAIN)
        namespace = self._match(inner, "namespace", where, OptionKind.NAME)
        labels = self._labels(inner, where)
        if account is None or namespace is None:
            return None
        return Gateway(
            namespace=namespace,
            service_account=account,
            labels=labels or MappingProxyType({"app": account}),
            hosts=self._list(inner, "hosts", where, OptionKind.NAMES),
        )

    def _tokens(self, fields: _Fields) -> TokenIssuer | None:
        if "tokens" not in fields:
            return None
        where, node = "targets: tokens", fields["tokens"][1]
        inner = read_fields(node, g.TARGET_TOKENS_KEYS, where, self._problems)
        if not has_keys(inner, g.TARGET_TOKENS_KEYS, node, where, self._problems):
            return None
        issuer = self._text(inner, "issuer", where, g.HTTPS_URL, "an https URL")
        keys = self._text(inner, "jwks_uri", where, g.HTTPS_URL, "an https URL")
        return None if issuer is None or keys is None else TokenIssuer(issuer=issuer, jwks_uri=keys)

    def _networks(self, fields: _Fields) -> tuple[str, ...]:
        if "probe_networks" not in fields:
            return ()
        found = []
        for node in read_items(fields["probe_networks"][1], "targets: probe_networks", self._problems):
            text = read_text(node, "targets: probe_networks", self._problems)
            try:
                found.append(str(ipaddress.ip_network(text or "")))
            except ValueError:
                message = f"targets: probe_networks: {(text or '')[:60]!r} is not a network"
                self._problems.add(
                    "value", node.span, message, "e.g. 10.0.0.0/8, without bits after the prefix"
                )
        return tuple(found)

    def _egress(self, fields: _Fields) -> tuple[Egress, ...]:
        found = []
        for key, node in self._entries(fields, "egress"):
            where = f"targets: egress: {key.value[:80]}"
            name = read_match(key, g.DNS_LABEL, "targets: egress", "a DNS label", self._problems)
            inner = read_fields(node, g.EGRESS_KEYS, where, self._problems)
            if not has_keys(inner, ("host", "from"), node, where, self._problems):
                continue
            host = self._match(inner, "host", where, OptionKind.DOMAIN)
            port = self._number(inner, "port", where, 1, g.MAX_PORT) or g.HTTPS_PORT
            items = read_items(inner["from"][1], f"{where}: from", self._problems)
            callers = [read_name(item, self._services, f"{where}: from", self._problems) for item in items]
            if name is not None and host is not None:
                names = tuple(sorted({caller for caller in callers if caller is not None}))
                found.append(Egress(name=name, host=host, port=port, callers=names, span=node.span))
        return tuple(sorted(found, key=lambda one: one.name))

    # -- options

    def _options(self, fields: _Fields) -> Mapping[str, Mapping[str, OptionValue]]:
        found = {}
        for target, declared in OPTIONS.items():
            if target not in fields:
                continue
            where = f"targets: {target}"
            inner = read_fields(fields[target][1], tuple(declared), where, self._problems)
            values = {name: self._option(inner, name, where, declared[name]) for name in inner}
            kept = {n: v for n, v in values.items() if v is not None and v != declared[n].default}
            if kept:
                found[target] = MappingProxyType(kept)
        return MappingProxyType(found)

    def _option(self, fields: _Fields, name: str, where: str, option: Option) -> OptionValue | None:
        kind = option.kind
        if kind is OptionKind.NUMBER:
            return self._number(fields, name, where, 1, g.MAX_OPTION)
        if kind is OptionKind.SECONDS:
            return self._seconds(fields, name, where)
        if kind is OptionKind.SWITCH:
            return self._choice(fields, name, where, ("true", "false")) == "true"
        if kind in {OptionKind.NAMES, OptionKind.TEXTS}:
            values = self._list(fields, name, where, kind)
            if name in _KNOWN:
                self._check_known(values, fields, name, where)
            return values
        if option.choices:
            return self._choice(fields, name, where, option.choices)
        return self._match(fields, name, where, kind)

    def _check_known(self, names: tuple[str, ...], fields: _Fields, key: str, where: str) -> None:
        for name in names:
            if name not in _KNOWN[key]:
                suggestion = self._problems.guess(name, _KNOWN[key])
                message = f"{where}: {key}: unknown name {name[:80]!r}"
                self._problems.add("value", fields[key][1].span, message, suggestion)

    # -- values

    def _entries(self, fields: _Fields, key: str) -> tuple[tuple[Text, Node], ...]:
        if key not in fields:
            return ()
        node = fields[key][1]
        if not isinstance(node, Table) or not node.entries:
            message = f"targets: {key}: expected a mapping, found {kind_of(node)}"
            self._problems.add("type", node.span, message)
            return ()
        return node.entries

    def _match(self, fields: _Fields, key: str, where: str, kind: OptionKind) -> str | None:
        return self._text(fields, key, where, *_PATTERNS[kind])

    def _text(self, fields: _Fields, key: str, where: str, pattern: str, expected: str) -> str | None:
        if key not in fields:
            return None
        return read_match(fields[key][1], pattern, f"{where}: {key}", expected, self._problems)

    def _list(self, fields: _Fields, key: str, where: str, kind: OptionKind) -> tuple[str, ...]:
        if key not in fields:
            return ()
        pattern, expected = _PATTERNS[kind]
        place = f"{where}: {key}"
        items = read_items(fields[key][1], place, self._problems)
        found = [read_match(item, pattern, place, expected, self._problems) for item in items]
        return tuple(text for text in found if text is not None)

    def _number(self, fields: _Fields, key: str, where: str, low: int, high: int) -> int | None:
        if key not in fields:
            return None
        return read_number(fields[key][1], low, high, f"{where}: {key}", self._problems)

    def _seconds(self, fields: _Fields, key: str, where: str) -> int | None:
        text = self._text(fields, key, where, g.DURATION, "a duration such as 15s")
        if text is None:
            return None
        seconds = int(parse_duration(text).total_seconds())
        if not 1 <= seconds <= g.MAX_OPTION:
            message = f"{where}: {key}: {text} is not between 1s and {g.MAX_OPTION}s"
            self._problems.add("value", fields[key][1].span, message)
            return None
        return seconds

    def _choice(self, fields: _Fields, key: str, where: str, known: tuple[str, ...]) -> str | None:
        if key not in fields:
            return None
        node = fields[key][1]
        text = read_text(node, f"{where}: {key}", self._problems)
        if text is not None and text not in known:
            suggestion = self._problems.guess(text, known) or "known here: " + ", ".join(known)
            message = f"{where}: {key}: unknown value {text[:60]!r}"
            self._problems.add("value", node.span, message, suggestion)
            return None
        return text
