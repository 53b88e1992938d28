# SPDX-License-Identifier: Apache-2.0
"""The keys that tokens are believed under: parsed once, each pinned to one algorithm.

A document with one key that should not be there is refused whole: it is our own issuer's, and an issuer that
publishes a private or a weak key has lost control of what it publishes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric import rsa

from everyhop.core.errors import InputError, TokenError
from everyhop.jose.algorithms import Algorithm, signature_check
from everyhop.jose.jwk import PRIVATE_MEMBERS, Jwk, thumbprint
from everyhop.jose.strict_json import parse_json_object
from everyhop.tokens.codes import TokenCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Set as AbstractSet

    from everyhop.jose.algorithms import SignatureCheck

MAX_JWKS_BYTES: Final = 64 * 1024
MAX_KEYS: Final = 32
_REFUSED_OR_READ: Final = frozenset({"EC", "RSA", "oct"})
PROFILE_ALGORITHMS: Final = frozenset({Algorithm.ES256, Algorithm.RS256})


@dataclass(frozen=True, slots=True)
class PinnedKey:
    """A public key that verifies under exactly one algorithm, whatever a token says (RFC 8725 section 3.1)."""

    kid: str
    alg: Algorithm
    jwk: Jwk
    check: SignatureCheck = field(compare=False, repr=False)
    identity: str
    """Thumbprint and algorithm: what makes two keys the same one, in whatever document they came."""

    @classmethod
    def pin(cls, jwk: Jwk, *, algorithms: AbstractSet[Algorithm] = PROFILE_ALGORITHMS) -> PinnedKey:
        """Pin a key to its ``alg``, or without one to what its type signs with in this profile.

        Raises InputError for a key without a name, for another use than signatures, or of another algorithm.
        """
        if jwk.kid is None:
            raise InputError("a key of the set has no 'kid'")
        if jwk.use not in {None, "sig"}:
            raise InputError(f"the key {jwk.kid[:40]!r} is not for signatures")
        default = Algorithm.RS256 if isinstance(jwk.key, rsa.RSAPublicKey) else None
        possible = jwk.algorithms & algorithms
        alg = jwk.alg or (default if default in possible else next(iter(possible), None))
        if alg is None or alg not in possible:
            raise InputError(f"the key {jwk.kid[:40]!r} is of an algorithm that is not accepted")
        return cls(jwk.kid, alg, jwk, signature_check(jwk.key, alg), f"{alg.value}:{thumbprint(jwk.key)}")


class KeySet:
    """Keys by name; immutable.  ``version`` names the content: equal keys give an equal version."""

    __slots__ = ("_keys", "find", "version")

    def __init__(self, keys: Iterable[PinnedKey] = ()) -> None:
        found: dict[str, PinnedKey] = {}
        for key in keys:
            if key.kid in found:
                raise InputError(f"two keys have the name {key.kid[:40]!r}")
            found[key.kid] = key
        if len(found) > MAX_KEYS:
            raise InputError(f"a key set has at most {MAX_KEYS} keys")
        self._keys: Mapping[str, PinnedKey] = MappingProxyType(found)
        self.find: Callable[[str], PinnedKey | None] = found.get
        """Return the key of this name, or None."""
        names = "\n".join(sorted(f"{key.kid}\t{key.identity}" for key in found.values()))
        self.version = hashlib.sha256(names.encode()).hexdigest()

    @property
    def kids(self) -> frozenset[str]:
        """Return the names of the keys."""
        return frozenset(self._keys)

    def without(self, kids: AbstractSet[str]) -> KeySet:
        """Return the set less the keys that are named."""
        return KeySet(key for key in self._keys.values() if key.kid not in kids)


def parse_jwks(data: bytes, *, algorithms: AbstractSet[Algorithm] = PROFILE_ALGORITHMS) -> KeySet:
    """Read a JWK Set (RFC 7517 section 5) of 1 to 32 public keys in at most 64 KiB.

    A sound key of a type or algorithm that is not used here is passed over, as the section asks, so that an issuer
    may publish a new kind beside the old.
    Raises InputError for anything that is not exactly that: no object, a repeated member, a private or symmetric
    key, one without ``kid``, a ``kid`` twice, RSA below 2048 bits or with a small exponent, ``use`` or ``key_ops``
    for something else, an ``alg`` that is not the key's; or when no key is left to verify with.
    """
    return key_set_of(parse_json_object(data, max_bytes=MAX_JWKS_BYTES), algorithms=algorithms)


def key_set_of(
    members: Mapping[str, Any], *, algorithms: AbstractSet[Algorithm] = PROFILE_ALGORITHMS
) -> KeySet:
    """Read a JWK Set that is parsed already, by the same rules as :func:`parse_jwks`."""
    keys = members.get("keys")
    if not isinstance(keys, list) or not 0 < len(keys) <= MAX_KEYS:
        raise InputError(f"a JWK Set has an array 'keys' of 1 to {MAX_KEYS} keys")
    if not all(isinstance(entry, dict) for entry in keys):
        raise InputError("a key of the set is not an object")
    names = [entry.get("kid") for entry in keys]
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise InputError("the keys of the set do not have different names")
    jwks = [Jwk.from_members(entry) for entry in keys if not _is_of_another_type(entry)]
    # What a sound key could do, less what is used here: one with nothing in common belongs to somebody else.
    ours = [jwk for jwk in jwks if not jwk.algorithms or jwk.algorithms & algorithms]
    if not ours:
        raise InputError("no key of the set is of an algorithm that is used here")
    return KeySet(PinnedKey.pin(jwk, algorithms=algorithms) for jwk in ours)


def _is_of_another_type(entry: Mapping[str, Any]) -> bool:
    """Tell whether this is a public key of a type that is not used here; a symmetric one is never public."""
    kty = entry.get("kty")
    return isinstance(kty, str) and kty not in _REFUSED_OR_READ and not PRIVATE_MEMBERS & entry.keys()


class KeySource(Protocol):
    """Where a verifier gets keys from."""

    def key(self, kid: str) -> PinnedKey:
        """Return the key; may ask for new ones.  Raises TokenError UNKNOWN_KEY_ID."""

    def current(self, kid: str) -> PinnedKey | None:
        """Return the key if it is held now; never asks anybody."""


class StaticKeys:
    """Keys that never change."""

    __slots__ = ("_keys",)

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    @property
    def keys(self) -> KeySet:
        """Return the set that is held now."""
        return self._keys

    def current(self, kid: str) -> PinnedKey | None:
        """Return the key of this name, or None."""
        return self._keys.find(kid)

    def key(self, kid: str) -> PinnedKey:
        """Return the key of this name; raises TokenError UNKNOWN_KEY_ID."""
        found = self._keys.find(kid)
        if found is None:
            raise unknown_key()
        return found


class HeldKeys(StaticKeys):
    """Keys that somebody else keeps fresh, such as the stream of service contexts."""

    __slots__ = ()

    def replace(self, keys: KeySet) -> None:
        """Use another set from the next token on; tokens of keys that left it die at once."""
        self._keys = keys


def unknown_key() -> TokenError:
    """Return the error for a ``kid`` that no key has; the name is the sender's, so it is not repeated."""
    return TokenError(TokenCode.UNKNOWN_KEY_ID, "no key of the issuer has the name in the token")
