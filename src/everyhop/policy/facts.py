# SPDX-License-Identifier: Apache-2.0
"""What is known about a call besides who calls what: time, user, device, headers, resource.

Only verified facts belong here: a user from a verified token, an address that the proxy saw.  What is not known is
absent, and a condition that reads it cannot be evaluated, which denies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

Value = bool | int | float | str | tuple[str, ...] | datetime
"""The value of an attribute, of its declared type."""

_NOTHING: Final[Mapping[str, Value]] = MappingProxyType({})
_NO_HEADERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
MULTI_FACTOR: Final = "mfa"  # RFC 8176 section 2


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A verified user.

    ``id`` is the subject at ``issuer`` (an OpenID provider's URL), ``roles`` the names that the provider gives,
    ``amr``, ``acr`` and ``auth_time`` how and when they signed in (OpenID Connect Core section 2), ``attributes`` those
    that the policy declares for users.
    """

    id: str
    issuer: str | None = None
    roles: tuple[str, ...] = ()
    amr: tuple[str, ...] | None = None
    acr: str | None = None
    auth_time: datetime | None = None
    attributes: Mapping[str, Value] = field(default_factory=lambda: _NOTHING)

    @property
    def is_multi_factor(self) -> bool | None:
        """Tell whether more than one factor was used; None when the provider does not say."""
        return None if self.amr is None else MULTI_FACTOR in self.amr


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What a call is about: its type and id, and the attributes that the policy declares for resources."""

    type: str | None = None
    id: str | None = None
    attributes: Mapping[str, Value] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The facts of one call; what is absent is unknown.

    ``headers`` holds every field line of the chosen headers, by lower-case name; ``source_ip`` is the peer's address
    as text; ``now`` is aware.
    """

    now: datetime | None = None
    user: User | None = None
    device: Mapping[str, Value] = field(default_factory=lambda: _NOTHING)
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NO_HEADERS)
    source_ip: str | None = None
    resource: Resource | None = None


NOTHING_KNOWN: Final = Context()
