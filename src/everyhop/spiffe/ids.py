# SPDX-License-Identifier: Apache-2.0
"""Trust domains and SPIFFE IDs (SPIFFE-ID.md section 2)."""

from __future__ import annotations

import re
from typing import Final, Self, final

from everyhop.core.errors import InputError

MAX_SPIFFE_ID_BYTES: Final = 2048
MAX_TRUST_DOMAIN_BYTES: Final = 255

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+", re.ASCII)
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+", re.ASCII)
_SCHEME: Final = "spiffe://"


@final
class TrustDomain:
    """The name of a trust domain, e.g. ``shop.example`` (section 2.1)."""

    __slots__ = ("name",)
    name: str

    def __init__(self) -> None:
        raise TypeError("use TrustDomain.parse")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a bare name; upper case is folded, because comparison is case-insensitive (section 2.4).

        Raises InputError on any character outside ``[a-z0-9._-]``, an empty name or more than 255 bytes.
        """
        name = text.lower() if text.isascii() else text
        if not _TRUST_DOMAIN.fullmatch(name):
            raise InputError(
                f"{text[:80]!r} is not a trust domain",
                hint="use lower-case letters, digits, '.', '-' and '_'",
            )
        if len(name) > MAX_TRUST_DOMAIN_BYTES:
            raise InputError(f"a trust domain has at most {MAX_TRUST_DOMAIN_BYTES} bytes")
        self = object.__new__(cls)
        object.__setattr__(self, "name", name)
        return self

    def __setattr__(self, key: str, value: object) -> None:
        raise AttributeError("TrustDomain is immutable")

    @property
    def id(self) -> SpiffeId:
        """Return the SPIFFE ID of the trust domain itself, without a path (section 3.1)."""
        return SpiffeId.parse(f"{_SCHEME}{self.name}")

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"TrustDomain({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrustDomain) and self.name == other.name

    def __hash__(self) -> int:
        return hash((TrustDomain, self.name))


@final
class SpiffeId:
    """A SPIFFE ID such as ``spiffe://shop.example/service/orders``, held in normal form."""

    __slots__ = ("path", "trust_domain")
    trust_domain: TrustDomain
    path: str

    def __init__(self) -> None:
        raise TypeError("use SpiffeId.parse")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a URI; the scheme and the trust domain are folded to lower case (section 2.4).

        Raises InputError for another scheme, user information, port, query, fragment, percent-encoding, an
        empty, ``.`` or ``..`` segment, a trailing slash, or more than 2048 bytes.
        """
        if not text.isascii() or len(text) > MAX_SPIFFE_ID_BYTES:
            raise InputError("a SPIFFE ID is ASCII and has at most 2048 bytes")
        if text[: len(_SCHEME)].lower() != _SCHEME:
            raise InputError(f"{text[:80]!r} is not a SPIFFE ID", hint="it starts with spiffe://")
        domain, slash, rest = text[len(_SCHEME) :].partition("/")
        trust_domain = TrustDomain.parse(domain)
        if slash:
            for segment in rest.split("/"):
                if not _SEGMENT.fullmatch(segment) or segment in {".", ".."}:
                    raise InputError(
                        f"{text[:80]!r} is not a SPIFFE ID: bad path segment {segment[:40]!r}",
                        hint="segments are non-empty and use letters, digits, '.', '-' and '_'",
                    )
        self = object.__new__(cls)
        object.__setattr__(self, "trust_domain", trust_domain)
        object.__setattr__(self, "path", slash + rest)
        return self

    def __setattr__(self, key: str, value: object) -> None:
        raise AttributeError("SpiffeId is immutable")

    @property
    def has_path(self) -> bool:
        """Tell a workload's id (with a path) from a trust domain's (without)."""
        return bool(self.path)

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain.name}{self.path}"

    def __repr__(self) -> str:
        return f"SpiffeId({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SpiffeId) and (self.trust_domain, self.path) == (
            other.trust_domain,
            other.path,
        )

    def __hash__(self) -> int:
        return hash((self.trust_domain, self.path))
