# SPDX-License-Identifier: Apache-2.0
"""Istio's values: ``*`` is presence, ``*x`` a suffix, ``x*`` a prefix, anything else exact.

A leading star is looked at first, so ``*x*`` is the suffix ``x*``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from everyhop.evaluators.envoy_paths import bare_path, template_pattern

if TYPE_CHECKING:
    from collections.abc import Iterable

Matcher = Callable[[str], bool]
"""Tells whether a text is matched."""
SCHEME: Final = "spiffe://"
ONE_SEGMENT: Final = "{*}"
REST: Final = "{**}"
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def text(value: str, *, ignores_case: bool = False) -> Matcher:
    """Return the matcher of a value; an empty text is not present."""
    wanted = value.lower() if ignores_case else value

    def folded(found: str) -> str:
        return found.lower() if ignores_case else found

    if value == "*":
        return lambda found: found != ""
    if value.startswith("*"):
        return lambda found: folded(found).endswith(wanted[1:])
    if value.endswith("*"):
        return lambda found: folded(found).startswith(wanted[:-1])
    return lambda found: folded(found) == wanted


def principal(value: str) -> Matcher:
    """Return the matcher of a principal, which is a SPIFFE ID without its scheme; the ID comes with it."""
    if value == "*":
        return lambda found: found != ""
    inner = text(value)
    return lambda found: found.startswith(SCHEME) and inner(found[len(SCHEME) :])


def namespace(value: str) -> Matcher:
    """Return the matcher of a namespace: ``/ns/VALUE/`` anywhere in the SPIFFE ID, of **any** trust domain.

    Each star stands for any characters, slashes too.
    """
    inner = ".*".join(re.escape(part) for part in value.split("*"))
    pattern = re.compile(f".*/ns/{inner}/.*")
    return lambda found: pattern.fullmatch(found) is not None


def service_account(value: str, own_namespace: str) -> Matcher:
    """Return the matcher of ``[NAMESPACE/]ACCOUNT``, of **any** trust domain and with further pairs between and after."""
    place, slash, account = value.rpartition("/")
    place = place if slash else own_namespace
    pattern = re.compile(f"spiffe://.+/ns/{re.escape(place)}/(?:.+/)?sa/{re.escape(account)}(?:/.+)?")
    return lambda found: pattern.fullmatch(found) is not None


def trust_domain(value: str) -> Matcher:
    """Return the matcher of a trust domain; a star does not reach over a slash."""
    if value == "*":
        return lambda found: found.startswith(SCHEME)
    inner = "[^/]*".join(re.escape(part) for part in value.split("*", 1))
    pattern = re.compile(f"spiffe://{inner}/.*")
    return lambda found: pattern.fullmatch(found) is not None


def request_principal(value: str) -> tuple[Matcher, Matcher]:
    """Return the matchers of issuer and subject: the value is split at its **last** slash.

    Without a slash ``x*`` is a prefix of the issuer and ``*x`` a suffix of the subject, the other only being there.
    """
    issuer, slash, subject = value.rpartition("/")
    if not slash:
        issuer, subject = value, ""
    if value == "*":
        return text("*"), text("*")
    if value.startswith("*"):
        return (text(issuer), _exact(subject)) if slash else (text("*"), text(value))
    if value.endswith("*"):
        return (_exact(issuer), text(subject)) if slash else (text(value), text("*"))
    return _exact(issuer), _exact(subject)


def _exact(value: str) -> Matcher:
    return lambda found: found == value


def path(value: str) -> Matcher:
    """Return the matcher of a path, given with its query, which is not looked at.  Raises InputError for a bad template."""
    if ONE_SEGMENT in value or REST in value:
        pattern = template_pattern(value.replace(ONE_SEGMENT, "*").replace(REST, "**"))
        return lambda found: pattern.fullmatch(bare_path(found)) is not None
    inner = text(value)
    return lambda found: inner(bare_path(found))


def addresses(values: Iterable[str]) -> Callable[[Address], bool]:
    """Return what tells whether an address is one of these, or in one of these networks (host bits may be set)."""
    networks = [ipaddress.ip_network(value, strict=False) for value in values]
    return lambda found: any(found.version == one.version and found in one for one in networks)
