# SPDX-License-Identifier: Apache-2.0
"""The attributes that rules look at: for each what its values mean, and whether it exists on HTTP alone.

pilot/pkg/security/authz/model/{model,generator}.go; what validation refuses (pkg/config/security) is refused here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.istio import matching

if TYPE_CHECKING:
    from collections.abc import Iterable

    from everyhop.evaluators.istio.facts import Facts
    from everyhop.evaluators.istio.matching import Matcher

Test = Callable[["Facts"], bool]
"""Tells whether one of the values holds for a request."""
Maker = Callable[[Sequence[str], str], Test]
"""Makes a test of values; the namespace of the policy comes with them."""

_MAX_PORT: Final = 65535
_MAX_ACCOUNTS: Final = 16
_MAX_ACCOUNT: Final = 320
_NESTED: Final = re.compile(r"(?:\[[^\[\]]*\])+")
HEADERS: Final = "request.headers"
CLAIMS: Final = "request.auth.claims"
METADATA: Final = "experimental.envoy.filters."


def principals(values: Sequence[str], _own: str) -> Test:
    """The caller is one of these identities."""
    matchers = [matching.principal(value) for value in values]
    return lambda facts: _any(matchers, facts.peer)


def namespaces(values: Sequence[str], _own: str) -> Test:
    """The caller is of a namespace of this name, in whatever trust domain."""
    matchers = [matching.namespace(value) for value in values]
    return lambda facts: _any(matchers, facts.peer)


def service_accounts(values: Sequence[str], own: str) -> Test:
    """The caller is of a service account of this name, in whatever trust domain."""
    if len(values) > _MAX_ACCOUNTS:
        raise InputError(f"there are at most {_MAX_ACCOUNTS} service accounts")
    for value in values:
        if "*" in value or len(value) > _MAX_ACCOUNT or not all(value.split("/", 1)) or value.count("/") > 1:
            raise InputError(f"{value[:60]!r} is not [NAMESPACE/]SERVICEACCOUNT")
    matchers = [matching.service_account(value, own) for value in values]
    return lambda facts: _any(matchers, facts.peer)


def trust_domains(values: Sequence[str], _own: str) -> Test:
    """The caller is of one of these trust domains."""
    for value in values:
        if "/" in value or "*" in value[1:-1] or value.count("*") > 1:
            raise InputError(f"{value[:60]!r} is no trust domain")
    matchers = [matching.trust_domain(value) for value in values]
    return lambda facts: _any(matchers, facts.peer)


def source_ips(values: Sequence[str], _own: str) -> Test:
    """The connection comes from one of these addresses."""
    inside = matching.addresses(_networks(values))
    return lambda facts: inside(facts.source_ip)


def remote_ips(values: Sequence[str], _own: str) -> Test:
    """The client, as forwarding headers tell it, has one of these addresses."""
    inside = matching.addresses(_networks(values))
    return lambda facts: inside(facts.remote_ip)


def destination_ips(values: Sequence[str], _own: str) -> Test:
    """The connection goes to one of these addresses."""
    inside = matching.addresses(_networks(values))
    return lambda facts: inside(facts.destination_ip)


def ports(values: Sequence[str], _own: str) -> Test:
    """The connection goes to one of these ports of the workload."""
    for value in values:
        if not re.fullmatch("[0-9]{1,9}", value) or int(value) > _MAX_PORT:
            raise InputError(f"{value[:20]!r} is no port")
    wanted = {int(value) for value in values}
    return lambda facts: facts.port in wanted


def server_names(values: Sequence[str], _own: str) -> Test:
    """The client asked for one of these names in TLS."""
    matchers = [matching.text(value) for value in values]
    return lambda facts: _any(matchers, facts.sni)


def hosts(values: Sequence[str], _own: str) -> Test:
    """The authority is one of these, in whatever case; a port in it counts."""
    return _header_test(":authority", values, ignores_case=True)


def methods(values: Sequence[str], _own: str) -> Test:
    """The method is one of these."""
    return _header_test(":method", values)


def paths(values: Sequence[str], _own: str) -> Test:
    """The path, without its query, is one of these, or of such a template."""
    for value in values:
        _check_template(value)
    matchers = [matching.path(value) for value in values]
    return lambda facts: _any(matchers, facts.path)


def request_principals(values: Sequence[str], _own: str) -> Test:
    """The token is one of these issuers' and subjects'."""
    matchers = [matching.request_principal(value) for value in values]

    def test(facts: Facts) -> bool:
        issuer, subject = (_claim(facts, name) for name in ("iss", "sub"))
        if not isinstance(issuer, str) or not isinstance(subject, str):
            return False
        return any(of_issuer(issuer) and of_subject(subject) for of_issuer, of_subject in matchers)

    return test


def audiences(values: Sequence[str], _own: str) -> Test:
    """The token is for one of these audiences."""
    return _claim_test(("aud",), values)


def presenters(values: Sequence[str], _own: str) -> Test:
    """The token was given to one of these (``azp``)."""
    return _claim_test(("azp",), values)


def header(name: str) -> Maker:
    """Return what looks at a header, of which several values count as one with commas."""
    return lambda values, _own: _header_test(name.lower(), values)


def claim(names: Sequence[str]) -> Maker:
    """Return what looks at a claim, nested by names: a text that is one of the values, or a list that contains one."""
    return lambda values, _own: _claim_test(names, values)


def metadata(filter_name: str, key: str) -> Maker:
    """Return what looks at metadata of another filter: a text, or with ``[x]`` a list that contains it."""

    def make(values: Sequence[str], _own: str) -> Test:
        lists = [
            matching.text(value.strip("[]"))
            for value in values
            if value.startswith("[") and value.endswith("]")
        ]
        texts = [
            matching.text(value) for value in values if not (value.startswith("[") and value.endswith("]"))
        ]

        def test(facts: Facts) -> bool:
            found = facts.metadata.get(filter_name, {}).get(key)
            if isinstance(found, list | tuple):
                return any(isinstance(one, str) and _any(lists, one) for one in found)
            return isinstance(found, str) and _any(texts, found)

        return test

    return make


WHEN: Final[dict[str, tuple[Maker, bool]]] = {
    "source.ip": (source_ips, False),
    "remote.ip": (remote_ips, False),
    "source.namespace": (namespaces, False),
    "source.serviceAccount": (service_accounts, False),
    "source.trustDomain": (trust_domains, False),
    "source.principal": (principals, False),
    "request.auth.principal": (request_principals, True),
    "request.auth.audiences": (audiences, True),
    "request.auth.presenter": (presenters, True),
    "destination.ip": (destination_ips, False),
    "destination.port": (ports, False),
    "connection.sni": (server_names, False),
}
"""Keys of ``when`` without a name in brackets, and whether they exist on HTTP alone."""


def when(key: str) -> tuple[Maker, bool]:
    """Return what a key of ``when`` looks at, and whether it exists on HTTP alone; raises InputError for an unknown one."""
    if key in WHEN:
        return WHEN[key]
    if key.endswith("]"):
        if key.startswith(HEADERS + "[") and len(key) > len(HEADERS) + 2:
            return header(key[len(HEADERS) + 1 : -1]), True
        if key.startswith(CLAIMS + "[") and len(key) > len(CLAIMS) + 2:
            rest = key[len(CLAIMS) :]
            names = rest[1:-1].split("][") if _NESTED.fullmatch(rest) else [rest[1:-1]]
            return claim(tuple(names)), True
        name, bracket, inner = key.removeprefix("experimental.")[:-1].partition("[")
        if key.startswith(METADATA) and bracket and inner:
            return metadata(name, inner), False
    raise InputError(f"unknown attribute {key[:80]!r}")


def _any(matchers: Iterable[Matcher], found: str) -> bool:
    return any(matches(found) for matches in matchers)


def _header_test(name: str, values: Sequence[str], *, ignores_case: bool = False) -> Test:
    is_presence = "*" in values
    matchers = [matching.text(value, ignores_case=ignores_case) for value in values if value != "*"]

    def test(facts: Facts) -> bool:
        found = facts.headers.get(name)
        return found is not None and (is_presence or _any(matchers, found))

    return test


def _claim(facts: Facts, *names: str) -> Any:
    found: Any = facts.claims
    for name in names:
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


def _claim_test(names: Sequence[str], values: Sequence[str]) -> Test:
    matchers = [matching.text(value) for value in values]

    def test(facts: Facts) -> bool:
        found = _claim(facts, *names)
        if isinstance(found, list | tuple):
            return any(isinstance(one, str) and _any(matchers, one) for one in found)
        return isinstance(found, str) and _any(matchers, found)

    return test


def _networks(values: Sequence[str]) -> Sequence[str]:
    for value in values:
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError as error:
            raise InputError(f"{value[:60]!r} is neither an address nor a network") from error
        if "/" in value and not value.rpartition("/")[2].isdigit():
            raise InputError(f"{value[:60]!r} is neither an address nor a network")
    return values


def _check_template(value: str) -> None:
    if "{" not in value and "}" not in value:
        return
    if not (matching.ONE_SEGMENT in value or matching.REST in value):
        raise InputError(f"a brace belongs to {{*}} or {{**}} alone: {value[:80]!r}")
    for segment in value.strip("/").split("/"):
        if segment not in {matching.ONE_SEGMENT, matching.REST} and set("{}*") & set(segment):
            raise InputError(f"{segment[:40]!r} is no segment of a path template: {value[:80]!r}")
