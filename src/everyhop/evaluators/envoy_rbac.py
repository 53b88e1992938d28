# SPDX-License-Identifier: Apache-2.0
"""Envoy's RBAC filter, of HTTP and of the network (api config/rbac/v3; source/extensions/filters/common/rbac).

Read as JSON in either spelling of protobuf (``and_rules`` or ``andRules``).  Policies add up; a policy matches if one permission and
one principal do.  ALLOW lets pass what some policy matches, DENY what none does, LOG everything, no ``rules`` everything;
``shadow_rules`` decide nothing.  A matcher tree may stand in place of rules.  CEL conditions and extension matchers raise InputError.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.envoy_json import member, only, snake, type_name
from everyhop.evaluators.envoy_matchers import header_matcher, metadata_matcher, string_matcher
from everyhop.evaluators.envoy_paths import bare_path, template_pattern
from everyhop.evaluators.envoy_rbac_tree import Decide, Undecided, read_tree

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_ACTIONS: Final = ("ALLOW", "DENY", "LOG")
_TEMPLATE: Final = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
_FILTERS: Final = (
    "envoy.extensions.filters.http.rbac.v3.RBAC",
    "envoy.extensions.filters.network.rbac.v3.RBAC",
)
_NO_FILTER_FIELDS: Final = ("@type",)
_LOCAL: Final = ipaddress.IPv4Address("10.1.0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What the filter sees of a request or connection.

    ``uris`` and ``dns_names`` are the SANs of the client certificate, ``subject`` its subject; ``is_tls``: there is a certificate or
    at least TLS.  ``headers`` have lower-case names and pseudo headers with them.  ``metadata`` is dynamic metadata by filter.
    """

    is_tls: bool = False
    uris: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    subject: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    source_ip: Address = _LOCAL
    direct_remote_ip: Address = _LOCAL
    remote_ip: Address = _LOCAL
    destination_ip: Address = _LOCAL
    port: int = 0
    server_name: str = ""
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    route_metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    filter_state: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


Test = Callable[[Attempt], bool]


@dataclass(frozen=True, slots=True)
class RbacPolicy:
    """One policy: alternatives of permissions and of principals."""

    name: str
    permissions: tuple[Test, ...]
    principals: tuple[Test, ...]

    def matches(self, attempt: Attempt) -> bool:
        """Tell whether one permission and one principal match."""
        return any(test(attempt) for test in self.permissions) and any(
            test(attempt) for test in self.principals
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """``rules`` or ``shadow_rules``: an action and the policies, in the order of their names, which is the one that Envoy asks in."""

    action: str
    policies: tuple[RbacPolicy, ...]

    def matching(self, attempt: Attempt) -> str | None:
        """Return the name of the first policy that matches."""
        return next((one.name for one in self.policies if one.matches(attempt)), None)

    def allows(self, attempt: Attempt) -> bool:
        """Tell whether the attempt passes."""
        if self.action == "LOG":
            return True
        return (self.matching(attempt) is not None) == (self.action == "ALLOW")


@dataclass(frozen=True, slots=True)
class Rbac:
    """One filter; each part is None where it is not written."""

    rules: Rules | None
    shadow_rules: Rules | None
    tree: Decide | None = None

    def allows(self, attempt: Attempt) -> bool:
        """Tell whether the filter lets an attempt pass; a tree in which nothing matches denies."""
        if self.tree is not None:
            try:
                decision = self.tree(attempt)
            except Undecided:
                return False
            return decision is not None and decision.allows
        return self.rules is None or self.rules.allows(attempt)


def read_filter(value: Mapping[str, Any]) -> Rbac:
    """Read the typed config of an RBAC filter of HTTP or of the network, or a filter with its ``typed_config``.

    Raises InputError for anything that this module does not know, also for rules and a matcher tree together.
    """
    inner = member(value, "typed_config")
    found = value if inner is None else inner
    if not isinstance(found, dict) or ("@type" in found and type_name(found) not in _FILTERS):
        raise InputError("this is no RBAC filter")
    only(
        found,
        *_NO_FILTER_FIELDS,
        "rules",
        "shadow_rules",
        "matcher",
        "shadow_matcher",
        "rules_stat_prefix",
        "shadow_rules_stat_prefix",
        "track_per_rule_stats",
        "stat_prefix",
        "enforcement_type",
        "delay_deny",
    )
    rules, shadow, tree = (member(found, name) for name in ("rules", "shadow_rules", "matcher"))
    if rules is not None and tree is not None:
        raise InputError("an RBAC filter has rules or a matcher")
    return Rbac(
        None if rules is None else read_rules(rules),
        None if shadow is None else read_rules(shadow),
        None if tree is None else read_tree(tree),
    )


def read_rules(value: Mapping[str, Any]) -> Rules:
    """Read one ``envoy.config.rbac.v3.RBAC``."""
    only(value, "action", "policies", "audit_logging_options")
    action = member(value, "action", "ALLOW")
    if action not in _ACTIONS:
        raise InputError(f"RBAC has no action {action!r}")
    policies = member(value, "policies", {})
    return Rules(action, tuple(_policy(name, policies[name]) for name in sorted(policies)))


def _policy(name: str, value: Mapping[str, Any]) -> RbacPolicy:
    only(value, "permissions", "principals")
    permissions, principals = member(value, "permissions", ()), member(value, "principals", ())
    if not permissions or not principals:
        raise InputError(f"the policy {name[:80]!r} has no permissions or no principals")
    return RbacPolicy(
        name,
        tuple(_one(one, _PERMISSIONS, _permission_set) for one in permissions),
        tuple(_one(one, _PRINCIPALS, _principal_set) for one in principals),
    )


Reader = Callable[[Any], Test]


def _one(value: Any, readers: Mapping[str, Reader], sets: Callable[[str, Any], Test | None]) -> Test:
    if not isinstance(value, dict) or len(value) != 1:
        raise InputError("a permission or principal has exactly one member")
    ((key, held),) = value.items()
    name = snake(key)
    composed = sets(name, held)
    if composed is not None:
        return composed
    if name not in readers:
        raise InputError(f"RBAC's {name!r} is not known here")
    return readers[name](held)


def _permission_set(name: str, value: Any) -> Test | None:
    def inner(one: Any) -> Test:
        return _one(one, _PERMISSIONS, _permission_set)

    return _composed(name, value, ("and_rules", "or_rules", "not_rule", "rules"), inner)


def _principal_set(name: str, value: Any) -> Test | None:
    def inner(one: Any) -> Test:
        return _one(one, _PRINCIPALS, _principal_set)

    return _composed(name, value, ("and_ids", "or_ids", "not_id", "ids"), inner)


def _composed(name: str, value: Any, names: Sequence[str], inner: Callable[[Any], Test]) -> Test | None:
    every, some, negated, items = names
    if name == negated:
        refused = inner(value)
        return lambda attempt: not refused(attempt)
    if name not in {every, some}:
        return None
    only(value, items)
    tests = tuple(inner(one) for one in member(value, items, ()))
    if not tests:
        raise InputError(f"{name} is empty")
    if name == every:
        return lambda attempt: all(test(attempt) for test in tests)
    return lambda attempt: any(test(attempt) for test in tests)


def _always(value: Any) -> Test:
    if value is not True:
        raise InputError("any is true or not there")
    return lambda _attempt: True


def _header(value: Any) -> Test:
    matches = header_matcher(value)
    return lambda attempt: matches(attempt.headers)


def _url_path(value: Any) -> Test:
    only(value, "path")
    matches = string_matcher(member(value, "path"))

    def test(attempt: Attempt) -> bool:
        path = attempt.headers.get(":path")
        return path is not None and matches(bare_path(path))

    return test


def _uri_template(value: Any) -> Test:
    only(value, "name", "typed_config")
    config = member(value, "typed_config")
    if not isinstance(config, dict) or type_name(config) != _TEMPLATE:
        raise InputError("uri_template holds a UriTemplateMatchConfig")
    only(config, "@type", "path_template")
    pattern = template_pattern(member(config, "path_template", ""))

    def test(attempt: Attempt) -> bool:
        path = attempt.headers.get(":path")
        return path is not None and pattern.fullmatch(bare_path(path)) is not None

    return test


def _port(value: Any) -> Test:
    return lambda attempt: attempt.port == value


def _port_range(value: Any) -> Test:
    only(value, "start", "end")
    start, end = member(value, "start", 0), member(value, "end", 0)
    return lambda attempt: start <= attempt.port < end


def _address(of: Callable[[Attempt], Address]) -> Reader:
    def read(value: Any) -> Test:
        only(value, "address_prefix", "prefix_len")
        text, length = member(value, "address_prefix", ""), member(value, "prefix_len", 0)
        try:
            network = ipaddress.ip_network(f"{text}/{length}", strict=False)
        except ValueError as error:
            raise InputError(f"this is no range of addresses: {text!r}/{length!r}") from error

        def test(attempt: Attempt) -> bool:
            found = of(attempt)
            return found.version == network.version and found in network

        return test

    return read


def _server_name(value: Any) -> Test:
    matches = string_matcher(value)
    return lambda attempt: matches(attempt.server_name)


def _authenticated(value: Any) -> Test:
    only(value, "principal_name")
    written = member(value, "principal_name")
    if written is None:
        return lambda attempt: attempt.is_tls
    matches = string_matcher(written)

    def test(attempt: Attempt) -> bool:
        return attempt.is_tls and any(
            matches(one) for one in (*attempt.uris, *attempt.dns_names, attempt.subject)
        )

    return test


def _metadata(value: Any) -> Test:
    matches = metadata_matcher(value)
    return lambda attempt: matches(attempt.metadata)


def _sourced_metadata(value: Any) -> Test:
    only(value, "metadata_matcher", "metadata_source")
    matches = metadata_matcher(member(value, "metadata_matcher"))
    source = member(value, "metadata_source", "DYNAMIC")
    if source not in {"DYNAMIC", "ROUTE"}:
        raise InputError(f"there is no metadata source {source!r}")
    if source == "ROUTE":
        return lambda attempt: matches(attempt.route_metadata)
    return lambda attempt: matches(attempt.metadata)


def _filter_state(value: Any) -> Test:
    only(value, "key", "string_match")
    key, matches = member(value, "key", ""), string_matcher(member(value, "string_match"))

    def test(attempt: Attempt) -> bool:
        found = attempt.filter_state.get(key)
        return found is not None and matches(found)

    return test


_PERMISSIONS: Final[Mapping[str, Reader]] = {
    "any": _always,
    "header": _header,
    "url_path": _url_path,
    "uri_template": _uri_template,
    "destination_ip": _address(lambda attempt: attempt.destination_ip),
    "destination_port": _port,
    "destination_port_range": _port_range,
    "requested_server_name": _server_name,
    "metadata": _metadata,
    "sourced_metadata": _sourced_metadata,
}
_PRINCIPALS: Final[Mapping[str, Reader]] = {
    "any": _always,
    "authenticated": _authenticated,
    "filter_state": _filter_state,
    "header": _header,
    "url_path": _url_path,
    "metadata": _metadata,
    "sourced_metadata": _sourced_metadata,
    "source_ip": _address(lambda attempt: attempt.source_ip),
    "direct_remote_ip": _address(lambda attempt: attempt.direct_remote_ip),
    "remote_ip": _address(lambda attempt: attempt.remote_ip),
}


def allows_all(filters: Iterable[Rbac], attempt: Attempt) -> bool:
    """Tell whether an attempt passes all filters of a chain."""
    return all(one.allows(attempt) for one in filters)
