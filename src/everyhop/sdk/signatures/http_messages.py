# SPDX-License-Identifier: Apache-2.0
"""HTTP Message Signatures (RFC 9421) for requests that pass through proxies that end TLS, such as webhooks.

Always covered: method, authority, path, query, ``content-digest`` (RFC 9530, also of an empty body), the audience
and the chain; and ``content-type`` where there is one.  Parameters are exactly created, expires, keyid (the x5t#S256
of the leaf), alg, nonce and tag.  The signature base is built by the kept library ``http-message-signatures`` (extra
``signatures``); keys, times, coverage, digest and replay are judged here.
"""

from __future__ import annotations

import hmac
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import InputError, SignatureError, Unavailable
from everyhop.sdk.signatures.http_model import (
    AUDIENCE_HEADER,
    CHAIN_HEADER,
    MAX_BODY_BYTES,
    RESERVED,
    Fields,
    HttpMessage,
    View,
    check_shape,
    digest,
    read_chain,
    write_chain,
)
from everyhop.sdk.signatures.model import (
    DEFAULT_LIFETIME,
    MAX_AUDIENCE,
    MAX_NONCE,
    Reason,
    Sender,
    check_name,
    check_window,
    refuse,
    window,
)
from everyhop.sdk.signatures.trust import SigningIdentity, SigningKey, Trust, spend
from everyhop.x509.thumbprint import x5t_s256

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from cryptography.hazmat.primitives.asymmetric import ec

    from everyhop.core.clock import Clock
    from everyhop.spiffe.ids import SpiffeId
    from everyhop.tokens.replay import ReplayGuard

LABEL: Final = "everyhop"
TAG: Final = "everyhop"
ALGORITHM: Final = "ecdsa-p256-sha256"
_PARAMETERS: Final = frozenset({"created", "expires", "keyid", "alg", "nonce", "tag"})
_COVERED: Final = (
    "@method",
    "@authority",
    "@path",
    "@query",
    "content-digest",
    AUDIENCE_HEADER.lower(),
    CHAIN_HEADER.lower(),
)


class HttpSigner:
    """Signs requests with the identity of the moment; needs the extra ``signatures``."""

    def __init__(self, identity: Callable[[], SigningIdentity], clock: Clock) -> None:
        self._key = SigningKey(identity)
        self._clock = clock

    def sign(
        self,
        message: HttpMessage,
        *,
        audience: str,
        lifetime: timedelta = DEFAULT_LIFETIME,
        nonce: str | None = None,
    ) -> tuple[tuple[str, str], ...]:
        """Return the header fields to add to the request.

        Raises InputError for a request that is too large, that carries one of these fields already, or that cannot be
        signed; Unavailable when the library is not installed.
        """
        library = _library()
        if len(message.body) > MAX_BODY_BYTES or not 0 < len(audience) <= MAX_AUDIENCE:
            raise InputError("the body is too large, or the audience empty or too long")
        if any(name.lower() in RESERVED for name, _ in message.headers):
            raise InputError("the request carries a signature or a digest already")
        identity, name, key = self._key.current()
        begins, ends = window(self._clock.now(), lifetime, identity.not_after)
        added = [
            ("Content-Digest", digest(message.body)),
            (AUDIENCE_HEADER, audience),
            (CHAIN_HEADER, write_chain(identity.chain)),
        ]
        view = View(message.method, message.url, Fields([*message.headers, *added]))
        signer = library.HTTPMessageSigner(
            signature_algorithm=library.algorithms.ECDSA_P256_SHA256,
            key_resolver=_OwnKey(key),
        )
        try:
            signer.sign(
                view,
                key_id=name,
                created=datetime.fromtimestamp(begins, UTC),
                expires=datetime.fromtimestamp(ends, UTC),
                nonce=nonce or secrets.token_urlsafe(16),
                label=LABEL,
                tag=TAG,
                covered_component_ids=_covered(message),
            )
        except (library.HTTPMessageSignaturesException, SignatureError) as error:
            raise InputError(f"the request cannot be signed: {error}") from error
        return (
            *added,
            ("Signature-Input", view.headers["Signature-Input"]),
            ("Signature", view.headers["Signature"]),
        )


class HttpVerifier:
    """Takes requests for one ``audience`` from the senders that ``trust`` allows, each once.

    ``chain_of`` finds the chain of a ``keyid`` where the sender does not send it along.
    """

    def __init__(
        self,
        *,
        audience: str,
        trust: Trust,
        replay: ReplayGuard,
        clock: Clock,
        chain_of: Callable[[str], Sequence[bytes] | None] | None = None,
    ) -> None:
        self._audience = audience
        self._trust = trust
        self._replay = replay
        self._clock = clock
        self._chain_of = chain_of

    def verify(self, message: HttpMessage) -> Sender:
        """Return who signed the request; a second time the same request is REPLAYED.

        The message is untrusted, but its ``url`` must be the one that the receiver knows itself by.  Raises
        SignatureError, and nothing else but Unavailable when the library is not installed.
        """
        library = _library()
        try:
            return self._verify(message, library)
        except SignatureError:
            raise
        except Exception as error:
            raise refuse(
                Reason.MALFORMED, f"the signature cannot be read ({type(error).__name__})"
            ) from error

    def _verify(self, message: HttpMessage, library: ModuleType) -> Sender:
        check_shape(message)
        now = self._clock.now()
        sent = message.one(CHAIN_HEADER)
        keys = _SenderKeys(self._trust, now, None if sent is None else read_chain(sent), self._chain_of)
        result = _verified(message, keys, library)
        parameters = result.parameters
        _check_coverage(message, result, chain_was_sent=sent is not None)
        _check_digest(message)
        if message.one(AUDIENCE_HEADER) != self._audience:
            raise refuse(Reason.AUDIENCE_MISMATCH, "the request is for another audience")
        issued_at, expires_at = check_window(parameters["created"], parameters["expires"], now)
        sender = Sender(
            spiffe_id=keys.sender,
            x5t=parameters["keyid"],
            nonce=check_name(parameters["nonce"], "the nonce", MAX_NONCE),
            issued_at=issued_at,
            expires_at=expires_at,
        )
        spend(self._replay, f"http:{self._audience}", sender)
        return sender


class _SenderKeys:
    """Finds the key of a ``keyid``: the chain, the trust, the allowed senders; keeps why it refused."""

    def __init__(
        self,
        trust: Trust,
        now: datetime,
        sent: Sequence[bytes] | None,
        chain_of: Callable[[str], Sequence[bytes] | None] | None,
    ) -> None:
        self._trust = trust
        self._now = now
        self._sent = sent
        self._chain_of = chain_of
        self.refusal: SignatureError | None = None
        self._sender: SpiffeId | None = None

    @property
    def sender(self) -> SpiffeId:
        """Return whose key was found."""
        if self._sender is None:
            raise refuse(Reason.SIGNATURE_INVALID, "no key was asked for")
        return self._sender

    def resolve_public_key(self, key_id: str) -> ec.EllipticCurvePublicKey:
        """Answer the library; what is raised here comes out of it in another coat."""
        try:
            chain = self._sent
            if chain is None:
                chain = None if self._chain_of is None else self._chain_of(key_id)
            if not chain:
                raise refuse(Reason.SENDER_UNTRUSTED, "there is no chain for the key that is named")
            if x5t_s256(chain[0]) != key_id:
                raise refuse(Reason.SIGNATURE_INVALID, "the signature names another certificate than its own")
            self._sender, key = self._trust.believe(chain, self._now)
        except SignatureError as error:
            self.refusal = error
            raise
        return key


class _OwnKey:
    """Gives the library the one key to sign with."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    def resolve_private_key(self, _key_id: str) -> ec.EllipticCurvePrivateKey:
        """Answer the library."""
        return self._key


def _verified(message: HttpMessage, keys: _SenderKeys, library: ModuleType) -> Any:
    """Return the one signature that holds."""
    verifier = library.HTTPMessageVerifier(
        signature_algorithm=library.algorithms.ECDSA_P256_SHA256, key_resolver=keys
    )
    # The library asks the machine's clock; the times are judged by ours, after the signature.
    verifier.validate_created_and_expires = lambda *_args, **_kwargs: None
    view = View(message.method, message.url, Fields(list(message.headers)))
    try:
        results = verifier.verify(view, max_age=None)
    except library.HTTPMessageSignaturesException as error:
        raise keys.refusal or refuse(
            Reason.SIGNATURE_INVALID, f"the signature does not hold: {error}"
        ) from error
    if len(results) != 1 or results[0].label != LABEL:
        raise refuse(Reason.MALFORMED, f"there is not exactly one signature, labelled {LABEL}")
    return results[0]


def _covered(message: HttpMessage, *, chain_is_sent: bool = True) -> tuple[str, ...]:
    typed = () if message.one("content-type") is None else ("content-type",)
    return (*(_COVERED if chain_is_sent else _COVERED[:-1]), *typed)


def _check_coverage(message: HttpMessage, result: Any, *, chain_was_sent: bool) -> None:
    needed = {f'"{name}"' for name in _covered(message, chain_is_sent=chain_was_sent)}
    missing = needed - result.covered_components.keys()
    if missing:
        raise refuse(Reason.NOT_COVERED, f"the signature does not cover {min(missing)}")
    parameters = result.parameters
    if parameters.keys() != _PARAMETERS or parameters["tag"] != TAG or parameters["alg"] != ALGORITHM:
        raise refuse(Reason.MALFORMED, "the signature does not have the parameters of the profile")


def _check_digest(message: HttpMessage) -> None:
    right = digest(message.body)
    sent = message.one("content-digest") or ""
    if not hmac.compare_digest(sent.encode(), right.encode()):
        raise refuse(Reason.SIGNATURE_INVALID, "the body is not the one that was signed")


def _library() -> ModuleType:
    try:
        import http_message_signatures
    except ImportError as error:
        raise Unavailable(
            "HTTP message signatures need the library http-message-signatures",
            hint="install everyhop[signatures]",
            retry=False,
        ) from error
    return http_message_signatures
