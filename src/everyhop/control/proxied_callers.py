# SPDX-License-Identifier: Apache-2.0
"""Who calls through a proxy that is not ours: from its word, or from the certificate that it passes on.

A name counts only as one SPIFFE ID of our trust domain in normal form.  Envoy's ``principal`` may as well be a DNS name
or a subject, and of several URIs it is the first, so a certificate that comes with it is verified here once more, by the
rules of X509-SVID.md and under the bundle of the moment, and must say the same.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from everyhop.core.errors import InputError, TrustError, Unavailable
from everyhop.spiffe.ids import SpiffeId
from everyhop.spiffe.x509_svid import validate_x509_svid
from everyhop.x509.certificates import certificates_from_pem
from everyhop.x509.chain import MAX_INTERMEDIATES
from everyhop.x509.thumbprint import x5t_s256

if TYPE_CHECKING:
    from everyhop.core.clock import Clock
    from everyhop.spiffe.bundle import Bundle
    from everyhop.spiffe.ids import TrustDomain

MAX_CERTIFICATE_TEXT: Final = 64 * 1024
MAX_REMEMBERED: Final = 4096
_PEM: Final = b"-----BEGIN"
_QUOTE: Final = '"'


@dataclass(frozen=True, slots=True)
class ProxiedCaller:
    """A caller that is believed: its SPIFFE ID, and the thumbprint of its certificate where that came along."""

    spiffe_id: str
    x5t: str | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    caller: ProxiedCaller
    not_before: datetime
    not_after: datetime


class ProxiedCallers:
    """Tells who calls, under the bundle of the moment.  All use is from one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._bundle: Bundle | None = None
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()

    def apply_bundle(self, bundle: Bundle) -> None:
        """Verify by this bundle from now on; what was verified before counts no more."""
        self._bundle = bundle
        self._seen.clear()

    def identify(self, principal: str | None, certificate: bytes | None) -> ProxiedCaller:
        """Return the caller; raises InputError or TrustError (no one known), Unavailable before the first bundle.

        With both, the certificate must prove the principal.
        """
        if certificate is None:
            return ProxiedCaller(self._name(principal))
        proven = self._proven(certificate)
        if principal is not None and self._name(principal) != proven.spiffe_id:
            raise TrustError("the certificate is not that of the principal")
        return proven

    def _name(self, principal: str | None) -> str:
        if not principal:
            raise TrustError("the proxy names no peer")
        return str(parse_principal(principal, self._held().trust_domain))

    def _held(self) -> Bundle:
        if self._bundle is None:
            raise Unavailable("there is no bundle yet")
        return self._bundle

    def _proven(self, text: bytes) -> ProxiedCaller:
        """Verify a certificate; the same bytes are verified once a bundle, their times again and again."""
        bundle, now = self._held(), self._clock.now()
        key = hashlib.sha256(text).digest()
        seen = self._seen.get(key)
        if seen is not None and seen.not_before <= now <= seen.not_after:
            return seen.caller
        chain = read_certificates(text)
        svid = validate_x509_svid(chain, bundle, now)
        caller = ProxiedCaller(str(svid.spiffe_id), x5t_s256(chain[0]))
        self._seen[key] = _Seen(caller, svid.not_before, svid.not_after)
        while len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
        return caller


def parse_principal(text: str, trust_domain: TrustDomain) -> SpiffeId:
    """Return the SPIFFE ID that ``text`` is, letter for letter; raises InputError or TrustError for anything else.

    Another scheme, another trust domain, upper case in either, several names, a trust domain alone: all refused.
    """
    found = SpiffeId.parse(text)
    if str(found) != text:
        raise TrustError("the SPIFFE ID is not in normal form")
    if found.trust_domain != trust_domain or not found.has_path:
        raise TrustError(f"{text[:80]!r} is no workload of {trust_domain}")
    return found


def read_certificates(text: bytes) -> tuple[bytes, ...]:
    """Return the chain in DER, leaf first, from URL-encoded PEM or from base64 with commas; raises InputError."""
    if len(text) > MAX_CERTIFICATE_TEXT:
        raise InputError("the certificate is too long")
    plain = unquote_to_bytes(text)
    if plain.lstrip().startswith(_PEM):
        chain = certificates_from_pem(plain)
    else:
        try:
            chain = tuple(b64decode(part, validate=True) for part in plain.split(b","))
        except ValueError as error:
            raise InputError("neither PEM nor base64") from error
    if not 0 < len(chain) <= 1 + MAX_INTERMEDIATES:
        raise InputError("not a chain of certificates")
    return chain


def uri_of_xfcc(value: str) -> str:
    """Return the one URI of the one element of an ``x-forwarded-client-cert``; raises InputError.

    A proxy that sanitises the field sends exactly one element.  With more, which of them is its own cannot be told.
    """
    pairs = [part.partition("=") for part in _split_xfcc(value)]
    uris = [text for key, _, text in pairs if key.strip().lower() == "uri"]
    if len(uris) != 1:
        raise InputError("x-forwarded-client-cert does not hold exactly one URI")
    return uris[0].removeprefix(_QUOTE).removesuffix(_QUOTE)


def _split_xfcc(value: str) -> list[str]:
    """Split one element into its pairs; a comma or a semicolon inside quotes separates nothing."""
    parts, is_quoted, is_escaped = [""], False, False
    for character in value:
        if is_escaped:
            is_escaped = False
        elif is_quoted and character == "\\":
            is_escaped = True
        elif character == _QUOTE:
            is_quoted = not is_quoted
        elif not is_quoted and character == ",":
            raise InputError("x-forwarded-client-cert holds more than one element")
        elif not is_quoted and character == ";":
            parts.append("")
            continue
        parts[-1] += character
    if is_quoted:
        raise InputError("x-forwarded-client-cert ends inside quotes")
    return parts
