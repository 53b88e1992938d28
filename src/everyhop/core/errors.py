# SPDX-License-Identifier: Apache-2.0
"""The one tree of errors.

EveryhopError
├── InputError            cannot be parsed, or is too large
├── TrustError            parsed, but not believed
│   ├── SvidError         an X509-SVID or JWT-SVID breaks its standard or its time
│   ├── ChainError        no valid path to a trusted authority
│   ├── SignatureError    a signed message is refused; ``reason`` says why
│   ├── ProofError        a proof of a transparency log does not prove what it is shown for
│   ├── TokenError        a token is refused; ``token_code`` says why, for callers
│   └── AttestationError  the peer of a socket could not be established
├── AccessDenied          believed, but not permitted
├── PolicyError           the policy text is wrong (one or more problems, each with a position)
├── SettingsError         the settings are wrong
├── Conflict              the state does not admit the change
├── NotFound              the thing named does not exist
└── Unavailable           a dependency failed; says whether to retry

Each class carries a stable ``code``; messages hold no secret.  Edges map classes to exit codes, HTTP and gRPC
status in one table each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.core.problems import Problem


class EveryhopError(Exception):
    """Base of every error that everyhop raises on purpose.

    ``message`` is safe to show to an operator; ``hint`` names the fix where one is known.
    """

    code: ClassVar[str] = "EVERYHOP_ERROR"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(EveryhopError):
    """Bytes or text that cannot be parsed, or exceed a stated limit."""

    code = "INVALID_INPUT"


class TrustError(EveryhopError):
    """A value that parses but is not believed."""

    code = "UNTRUSTED"


class SvidError(TrustError):
    """An SVID that breaks its standard, its time or its trust domain."""

    code = "SVID_INVALID"


class ChainError(TrustError):
    """A certificate without a valid path to a trusted authority (RFC 5280)."""

    code = "CHAIN_INVALID"


class TokenError(TrustError):
    """A token that is refused.

    ``token_code`` is one of the stable codes of ``tokens.codes`` and may be shown to the caller; ``message`` is for
    operators and holds no part of the token that could be used.
    """

    code = "TOKEN_REFUSED"

    def __init__(self, token_code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.token_code = token_code


class SignatureError(TrustError):
    """A signed message that is refused; ``reason`` is one of the stable reasons of ``sdk.signatures``."""

    code = "SIGNATURE_REFUSED"

    def __init__(self, reason: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class ProofError(TrustError):
    """A proof of a transparency log that does not prove what it is shown for (RFC 9162 section 2.1)."""

    code = "PROOF_INVALID"


class AttestationError(TrustError):
    """The process at the other end of a socket could not be established."""

    code = "ATTESTATION_FAILED"


class AccessDenied(EveryhopError):  # noqa: N818  # the name of the outcome, not of a fault
    """A known caller that is not permitted."""

    code = "ACCESS_DENIED"


class PolicyError(EveryhopError):
    """A policy that is refused; ``problems`` holds every mistake with its position."""

    code = "POLICY_INVALID"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problem.render() for problem in self.problems))


class SettingsError(EveryhopError):
    """Settings that are refused."""

    code = "SETTINGS_INVALID"


class Conflict(EveryhopError):  # noqa: N818  # HTTP's own word
    """The present state does not admit the change."""

    code = "CONFLICT"


class NotFound(EveryhopError):  # noqa: N818  # HTTP's own word
    """The thing named does not exist."""

    code = "NOT_FOUND"


class Unavailable(EveryhopError):  # noqa: N818  # gRPC's own word
    """A dependency failed; ``retry`` tells whether the same call may succeed later."""

    code = "UNAVAILABLE"

    def __init__(self, message: str, *, hint: str | None = None, retry: bool = True) -> None:
        super().__init__(message, hint=hint)
        self.retry = retry
