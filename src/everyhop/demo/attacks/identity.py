# SPDX-License-Identifier: Apache-2.0
"""Attacks on identity: certificates that are missing, foreign, forged, stolen, stale or strange."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from everyhop.demo.model import Attempt, Seen

if TYPE_CHECKING:
    from everyhop.demo.identities import Identity
    from everyhop.demo.range import Range

_THEME: Final = "identity"
_STOREFRONT: Final = "spiffe://shop.example/service/storefront"
_EVIL: Final = "spiffe://evil.example/service/storefront"
_MINUTE: Final = timedelta(minutes=1)
_UNBELIEVED: Final = "TLS alert: certificate unknown"


def _shown(make: Callable[[Range], Identity]) -> Callable[[Range], Seen]:
    """Return an attack that shows an identity to orders."""

    def run(field: Range) -> Seen:
        reply = field.show("orders", make(field))
        return Seen(text=reply.text, decision=reply.decision)

    return run


def _by_stranger(field: Range) -> Identity:
    return field.forger.leaf([_STOREFRONT], signer=field.forger.stranger)


def _with_dns(field: Range) -> Identity:
    """Return a leaf of intruder that also claims to be storefront by DNS name: only the URI may count."""
    uri = "spiffe://shop.example/service/intruder"
    return field.forger.leaf([uri], signer=field.forger.real, dns=["storefront"])


def _signed(
    *names: str, since: timedelta = -_MINUTE, until: timedelta = _MINUTE
) -> Callable[[Range], Identity]:
    """Return a maker of leaves that the real CA has signed."""

    def make(field: Range) -> Identity:
        return field.forger.leaf(names, signer=field.forger.real, since=since, until=until)

    return make


def attacks() -> list[Attempt]:
    """Return the attacks of this theme."""
    real = [
        ("no client certificate", "TLS alert: certificate required", lambda f: f.forger.nobody()),
        ("self-made CA, the right SPIFFE ID", _UNBELIEVED, _by_stranger),
        ("self-signed leaf", _UNBELIEVED, lambda f: f.forger.self_signed(_STOREFRONT)),
        (
            "SVID of another trust domain",
            _UNBELIEVED,
            lambda f: f.forger.leaf([_EVIL], signer=f.forger.stranger),
        ),
        (
            "expired SVID (real CA)",
            _UNBELIEVED,
            _signed(_STOREFRONT, since=-2 * _MINUTE, until=-_MINUTE),
        ),
        (
            "SVID that is not valid yet (real CA)",
            _UNBELIEVED,
            _signed(_STOREFRONT, since=10 * _MINUTE, until=20 * _MINUTE),
        ),
        (
            "two names, one of another trust domain (real CA)",
            "403 unknown-caller",
            _signed(_STOREFRONT, _EVIL),
        ),
        (
            "two names, both of this trust domain (real CA)",
            "403 unknown-caller",
            _signed(_STOREFRONT, "spiffe://shop.example/service/intruder"),
        ),
        ("one name, and a DNS name beside it (real CA)", "403 no-rule", _with_dns),
        (
            "the CA certificate used as a leaf",
            "TLS alert: illegal parameter",
            lambda f: f.forger.authority_as_leaf(),
        ),
        ("another trust domain, signed by the real CA", _UNBELIEVED, _signed(_EVIL)),
        (
            "a name that the policy does not declare (real CA)",
            "403 unknown-caller",
            _signed("spiffe://shop.example/service/admin"),
        ),
        ("look-alike: a longer name (real CA)", "403 unknown-caller", _signed(f"{_STOREFRONT}-2")),
        (
            "look-alike: upper-case scheme (real CA)",
            _UNBELIEVED,
            _signed(_STOREFRONT.replace("spiffe", "SPIFFE")),
        ),
        ("another service's own valid SVID", "403 no-rule", lambda f: f.identity("intruder")),
    ]
    return [
        Attempt(theme=_THEME, name=name, expected=expected, run=_shown(make)) for name, expected, make in real
    ]
