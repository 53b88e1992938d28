# SPDX-License-Identifier: Apache-2.0
"""What the Workload API hands out, checked before anybody uses it.

An update that breaks its standard in one point is refused whole: half an update may be the harmful half.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from everyhop.core.errors import InputError, SvidError
from everyhop.core.secret import Secret
from everyhop.spiffe.bundle import Bundle, decode_bundle
from everyhop.spiffe.ids import SpiffeId, TrustDomain
from everyhop.spiffe.x509_svid import validate_x509_svid
from everyhop.x509.certificates import certificates_to_pem, decode_certificate, split_certificates
from everyhop.x509.thumbprint import x5t_s256

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.wire.workload_pb2 import (
        X509SVID,
        JWTBundlesResponse,
        JWTSVIDResponse,
        X509BundlesResponse,
        X509SVIDResponse,
    )

MAX_IDENTITIES: Final = 64
MAX_KEY_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Identity:
    """An X509-SVID with its key: ``chain`` is DER, leaf first; ``key`` PKCS#8 DER; times are aware UTC."""

    spiffe_id: SpiffeId
    chain: tuple[bytes, ...] = field(repr=False)
    key: Secret
    bundle: Bundle = field(repr=False)
    hint: str
    not_before: datetime
    not_after: datetime
    x5t: str

    @property
    def chain_pem(self) -> bytes:
        """Return the chain as PEM, leaf first."""
        return certificates_to_pem(self.chain)

    @property
    def key_pem(self) -> Secret:
        """Return the key as PEM."""
        key = serialization.load_der_private_key(self.key.reveal(), password=None)
        return Secret(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Update:
    """One complete answer: every identity, the default first, and bundles of federated trust domains."""

    identities: tuple[X509Identity, ...]
    federated: Mapping[TrustDomain, Bundle]

    @property
    def default(self) -> X509Identity:
        """Return the default identity (Workload API section 8)."""
        return self.identities[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtIdentity:
    """A JWT-SVID as it was handed out; the receiver verifies it, we only carry it."""

    spiffe_id: SpiffeId
    token: Secret
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedJwt:
    """What the agent says of a JWT-SVID that holds."""

    spiffe_id: SpiffeId
    claims: Mapping[str, Any]


def read_x509_update(message: X509SVIDResponse, now: datetime) -> X509Update:
    """Check a message of FetchX509SVID (section 5.2.1) at ``now``.

    Raises InputError or TrustError for an empty message, bytes that do not parse, a chain without a path to its
    own bundle, a certificate that is over or of another id, a key that is not the certificate's, a hint twice.
    """
    if not 0 < len(message.svids) <= MAX_IDENTITIES:
        raise InputError(f"an update holds 1 to {MAX_IDENTITIES} identities")
    identities = tuple(_identity(one, now) for one in message.svids)
    hints = [one.hint for one in identities if one.hint]
    if len(set(hints)) != len(hints):
        raise InputError("two identities of an update have the same hint")
    federated = {
        bundle.trust_domain: bundle
        for name, joined in message.federated_bundles.items()
        for bundle in (_x509_bundle(name, joined),)
    }
    return X509Update(identities=identities, federated=MappingProxyType(federated))


def read_x509_bundles(message: X509BundlesResponse) -> Mapping[TrustDomain, Bundle]:
    """Check a message of FetchX509Bundles (section 5.2.2).  Raises InputError when empty or malformed."""
    if not message.bundles:
        raise InputError("an update without bundles")
    found = [_x509_bundle(name, joined) for name, joined in message.bundles.items()]
    return MappingProxyType({one.trust_domain: one for one in found})


def read_jwt_bundles(message: JWTBundlesResponse) -> Mapping[TrustDomain, Bundle]:
    """Check a message of FetchJWTBundles (section 6.2.2).  Raises InputError when empty or malformed."""
    if not message.bundles:
        raise InputError("an update without bundles")
    found = [decode_bundle(_trust_domain(name), document) for name, document in message.bundles.items()]
    return MappingProxyType({one.trust_domain: one for one in found})


def read_jwt_svids(message: JWTSVIDResponse) -> tuple[JwtIdentity, ...]:
    """Check an answer of FetchJWTSVID (section 6.2.1).  Raises InputError when a mandatory field is empty."""
    if not message.svids or not all(one.svid for one in message.svids):
        raise InputError("an answer without a token")
    return tuple(
        JwtIdentity(spiffe_id=SpiffeId.parse(one.spiffe_id), token=Secret(one.svid.encode()), hint=one.hint)
        for one in message.svids
    )


def _identity(message: X509SVID, now: datetime) -> X509Identity:
    spiffe_id = SpiffeId.parse(message.spiffe_id)
    chain = split_certificates(message.x509_svid)
    authorities = split_certificates(message.bundle)
    if not chain or not authorities or not message.x509_svid_key:
        raise InputError("an identity without certificate, key or bundle")
    bundle = Bundle(
        trust_domain=spiffe_id.trust_domain,
        x509_authorities=authorities,
        jwt_authorities=MappingProxyType({}),
    )
    svid = validate_x509_svid(chain, bundle, now)
    if svid.spiffe_id != spiffe_id:
        raise SvidError("the certificate is of another identity than the update says")
    key = Secret(message.x509_svid_key)
    _require_key_of(chain[0], key)
    return X509Identity(
        spiffe_id=spiffe_id,
        chain=chain,
        key=key,
        bundle=bundle,
        hint=message.hint,
        not_before=svid.not_before,
        not_after=svid.not_after,
        x5t=x5t_s256(chain[0]),
    )


def _require_key_of(leaf: bytes, key: Secret) -> None:
    data = key.reveal()
    if len(data) > MAX_KEY_BYTES:
        raise InputError("the private key is too large")
    try:
        loaded = serialization.load_der_private_key(data, password=None)
        matches = loaded.public_key() == decode_certificate(leaf).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # `from None`: an error of the parser may quote what it could not parse.
        raise InputError(f"not an unencrypted PKCS#8 private key ({type(error).__name__})") from None
    if not matches:
        raise SvidError("the private key is not the certificate's")


def _x509_bundle(name: str, joined: bytes) -> Bundle:
    authorities = split_certificates(joined)
    for der in authorities:
        decode_certificate(der)
    return Bundle(
        trust_domain=_trust_domain(name), x509_authorities=authorities, jwt_authorities=MappingProxyType({})
    )


def _trust_domain(name: str) -> TrustDomain:
    """Read the key of a bundle: the SPIFFE ID of its trust domain, without a path."""
    spiffe_id = SpiffeId.parse(name)
    if spiffe_id.has_path:
        raise InputError("a bundle is named by a trust domain, not by a workload")
    return spiffe_id.trust_domain
