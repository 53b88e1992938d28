# SPDX-License-Identifier: Apache-2.0
"""Messages for queues and files: a JWS with detached payload (RFC 7515 appendix F), beside the message it signs.

The header is closed: ``alg`` ES256, ``typ``, ``kid`` (the x5t#S256 of the leaf), ``x5c`` (the chain), ``aud``, ``iat``,
``exp``, ``jti`` (the nonce), and ``cty`` where the type of the payload matters.  The payload is any bytes.
"""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import InputError, SignatureError
from everyhop.jose.algorithms import Algorithm, signature_check
from everyhop.jose.encoding import decode_base64url, encode_base64url
from everyhop.jose.jws import sign_es256
from everyhop.jose.strict_json import parse_json_object
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
from everyhop.sdk.signatures.trust import MAX_CERTIFICATES, SigningIdentity, SigningKey, Trust, spend
from everyhop.x509.thumbprint import x5t_s256

if TYPE_CHECKING:
    from collections.abc import Callable

    from everyhop.core.clock import Clock
    from everyhop.tokens.replay import ReplayGuard

MESSAGE_TYPE: Final = "everyhop-message+jws"
MAX_SIGNATURE_BYTES: Final = 32 * 1024
MAX_PAYLOAD_BYTES: Final = 16 * 1024 * 1024
_MEMBERS: Final = frozenset({"alg", "typ", "kid", "x5c", "aud", "iat", "exp", "jti"})


class MessageSigner:
    """Signs messages with the identity of the moment: pass ``lambda: source.svid`` and rotation needs no thought."""

    def __init__(self, identity: Callable[[], SigningIdentity], clock: Clock) -> None:
        self._key = SigningKey(identity)
        self._clock = clock

    def sign(
        self,
        payload: bytes,
        *,
        audience: str,
        lifetime: timedelta = DEFAULT_LIFETIME,
        content_type: str | None = None,
        nonce: str | None = None,
    ) -> str:
        """Return the detached signature (``header..signature``) of ``payload`` for one ``audience``.

        Ends after ``lifetime`` (at most an hour) or with the certificate.  Raises InputError for a payload above 16
        MiB, an empty audience, or an identity that cannot sign.
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise InputError(f"a message has at most {MAX_PAYLOAD_BYTES} bytes")
        identity, name, key = self._key.current()
        issued_at, expires_at = window(self._clock.now(), lifetime, identity.not_after)
        header: dict[str, Any] = {
            "alg": Algorithm.ES256.value,
            "typ": MESSAGE_TYPE,
            "kid": name,
            "x5c": [b64encode(der).decode() for der in identity.chain],
            "aud": audience,
            "iat": issued_at,
            "exp": expires_at,
            "jti": nonce or secrets.token_urlsafe(16),
        }
        if content_type is not None:
            header["cty"] = content_type
        try:
            _check_header(header)
        except SignatureError as error:
            raise InputError(error.message) from error
        head, _, signature = sign_es256(key, header, payload).split(".")
        return f"{head}..{signature}"


class MessageVerifier:
    """Takes messages for one ``audience`` from the senders that ``trust`` allows, each once."""

    def __init__(self, *, audience: str, trust: Trust, replay: ReplayGuard, clock: Clock) -> None:
        self._audience = audience
        self._trust = trust
        self._replay = replay
        self._clock = clock

    def verify(self, payload: bytes, signature: str, *, content_type: str | None = None) -> Sender:
        """Return who signed ``payload``; a second time the same message is REPLAYED.

        Both arguments are untrusted; ``content_type`` is what the receiver is about to read the payload as, and must
        be what was signed.  Raises SignatureError, and nothing else.
        """
        try:
            return self._verify(payload, signature, content_type)
        except SignatureError:
            raise
        except Exception as error:
            raise refuse(
                Reason.MALFORMED, f"the signature cannot be read ({type(error).__name__})"
            ) from error

    def _verify(self, payload: bytes, text: str, content_type: str | None) -> Sender:
        head, signature = _split(payload, text)
        header = parse_json_object(decode_base64url(head), max_bytes=MAX_SIGNATURE_BYTES)
        chain = _check_header(header)
        now = self._clock.now()
        spiffe_id, key = self._trust.believe(chain, now)
        if header["kid"] != x5t_s256(chain[0]):
            raise refuse(Reason.SIGNATURE_INVALID, "the signature names another certificate than its own")
        message = f"{head}.{encode_base64url(payload)}".encode()
        if not signature_check(key, Algorithm.ES256)(decode_base64url(signature), message):
            raise refuse(Reason.SIGNATURE_INVALID, "the signature does not hold")
        if header.get("cty") != content_type:
            raise refuse(Reason.NOT_COVERED, "another type of content was signed")
        if header["aud"] != self._audience:
            raise refuse(Reason.AUDIENCE_MISMATCH, "the message is for another audience")
        issued_at, expires_at = check_window(header["iat"], header["exp"], now)
        sender = Sender(
            spiffe_id=spiffe_id,
            x5t=header["kid"],
            nonce=header["jti"],
            issued_at=issued_at,
            expires_at=expires_at,
        )
        spend(self._replay, f"jws:{self._audience}", sender)
        return sender


def _split(payload: bytes, text: str) -> tuple[str, str]:
    if len(payload) > MAX_PAYLOAD_BYTES or len(text) > MAX_SIGNATURE_BYTES:
        raise refuse(Reason.MALFORMED, "the message or its signature is too large")
    parts = text.split(".", 3)
    match parts:
        case [head, "", signature]:
            return head, signature
    raise refuse(Reason.MALFORMED, "not a signature with detached payload")


def _check_header(header: dict[str, Any]) -> list[bytes]:
    """Return the chain of a header that has the members of the profile and no other."""
    if header.keys() - {"cty"} != _MEMBERS:
        raise refuse(Reason.MALFORMED, "the header does not have the members of the profile")
    # The one algorithm: what the header says can only agree (RFC 8725 section 3.1).
    if header["alg"] != Algorithm.ES256.value or header["typ"] != MESSAGE_TYPE:
        raise refuse(Reason.SIGNATURE_INVALID, "not an ES256 signature of a message")
    check_name(header["aud"], "'aud'", MAX_AUDIENCE)
    check_name(header["jti"], "'jti'", MAX_NONCE)
    check_name(header["kid"], "'kid'", MAX_NONCE)
    check_name(header.get("cty", "-"), "'cty'", MAX_NONCE)
    x5c = header["x5c"]
    if not isinstance(x5c, list) or not 0 < len(x5c) <= MAX_CERTIFICATES:
        raise refuse(Reason.MALFORMED, "'x5c' is not a short list")
    return [_certificate(one) for one in x5c]


def _certificate(text: object) -> bytes:
    if not isinstance(text, str):
        raise refuse(Reason.MALFORMED, "'x5c' holds something else than text")
    try:
        return b64decode(text, validate=True)  # RFC 7515 section 4.1.6: base64, not base64url
    except ValueError as error:
        raise refuse(Reason.MALFORMED, "'x5c' is not base64") from error
