# SPDX-License-Identifier: Apache-2.0
"""Who may sign, and with what: the chain that came along against our own bundles, then the SPIFFE ID."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set as AbstractSet
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from everyhop.core.errors import InputError, TrustError
from everyhop.sdk.signatures.model import Reason, Sender, refuse
from everyhop.spiffe.ids import SpiffeId, TrustDomain
from everyhop.spiffe.x509_svid import check_leaf, validate_x509_svid
from everyhop.x509.certificates import decode_certificate
from everyhop.x509.chain import MAX_INTERMEDIATES
from everyhop.x509.thumbprint import x5t_s256

if TYPE_CHECKING:
    from everyhop.core.secret import Secret
    from everyhop.spiffe.bundle import Bundle
    from everyhop.tokens.replay import ReplayGuard

MAX_CHAIN_BYTES: Final = 16 * 1024
MAX_CERTIFICATES: Final = 1 + MAX_INTERMEDIATES


class SigningIdentity(Protocol):
    """An X509-SVID with its key, as ``X509Identity`` is one."""

    @property
    def chain(self) -> tuple[bytes, ...]:
        """DER, leaf first."""

    @property
    def key(self) -> Secret:
        """PKCS#8 DER."""

    @property
    def not_after(self) -> datetime:
        """When the leaf ends, aware UTC."""


class SigningKey:
    """The key of the identity of the moment, parsed once for each certificate."""

    def __init__(self, identity: Callable[[], SigningIdentity]) -> None:
        self._identity = identity
        self._parsed: tuple[str, ec.EllipticCurvePrivateKey] | None = None

    def current(self) -> tuple[SigningIdentity, str, ec.EllipticCurvePrivateKey]:
        """Return the identity, the name of its leaf and its key; raises InputError for a key that is not on P-256."""
        identity = self._identity()
        name = x5t_s256(identity.chain[0])
        parsed = self._parsed
        if parsed is None or parsed[0] != name:
            key = serialization.load_der_private_key(identity.key.reveal(), password=None)
            if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
                raise InputError("messages are signed with a key on the curve P-256")
            parsed = self._parsed = name, key
        return identity, name, parsed[1]


class Trust:
    """Bundles by trust domain, and the SPIFFE IDs that may sign for this receiver.

    ``bundles`` is asked on every message, so a rotation of an authority counts at once.
    """

    def __init__(
        self,
        bundles: Callable[[], Mapping[TrustDomain, Bundle]],
        allowed: AbstractSet[SpiffeId] | Callable[[SpiffeId], bool],
    ) -> None:
        self._bundles = bundles
        self._allows = allowed if callable(allowed) else allowed.__contains__

    def believe(self, chain: Sequence[bytes], now: datetime) -> tuple[SpiffeId, ec.EllipticCurvePublicKey]:
        """Return whose chain it is and the key of its leaf.

        ``chain`` is DER, leaf first, and untrusted.  Raises SignatureError SENDER_UNTRUSTED when it does not lead to
        the bundle of its trust domain now, SENDER_NOT_ALLOWED when it does and nobody asked for that sender.
        """
        if not 0 < len(chain) <= MAX_CERTIFICATES or sum(map(len, chain)) > MAX_CHAIN_BYTES:
            raise refuse(Reason.MALFORMED, "the chain is empty or too long")
        try:
            spiffe_id = self._validate(chain, now)
        except (InputError, TrustError) as error:
            raise refuse(Reason.SENDER_UNTRUSTED, error.message) from error
        key = decode_certificate(chain[0]).public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise refuse(Reason.SENDER_UNTRUSTED, "the key of the sender is not on the curve P-256")
        if self._allows(spiffe_id) is not True:
            raise refuse(Reason.SENDER_NOT_ALLOWED, f"{spiffe_id} is not expected to sign this")
        return spiffe_id, key

    def _validate(self, chain: Sequence[bytes], now: datetime) -> SpiffeId:
        # The name in the leaf only chooses the bundle; no bundle believes a leaf of another trust domain.
        trust_domain = check_leaf(decode_certificate(chain[0])).trust_domain
        bundle = self._bundles().get(trust_domain)
        if bundle is None:
            raise InputError(f"there is no bundle of {trust_domain}")
        return validate_x509_svid(chain, bundle, now).spiffe_id


def spend(guard: ReplayGuard, scope: str, sender: Sender) -> None:
    """Use up the nonce of a sender; raises SignatureError REPLAYED unless this is certainly its first use."""
    try:
        first = guard.use(f"{scope}:{sender.spiffe_id}:{sender.nonce}", sender.expires_at)
    except Exception as error:
        raise refuse(Reason.REPLAYED, "single use cannot be established now") from error
    if first is not True:
        raise refuse(Reason.REPLAYED, "the message was received before")
