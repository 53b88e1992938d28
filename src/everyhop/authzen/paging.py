# SPDX-License-Identifier: Apache-2.0
"""Page tokens (section 8.2): opaque, and good only for the query, the PEP and the policy that they were made for.

A token says where the next page begins, how long pages are, under which policy and when the walk began.  Its MAC covers
that, and who asks what; so a token of another PEP, of another query, or a changed one is of no use to anybody.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.jose.encoding import decode_base64url, encode_base64url

if TYPE_CHECKING:
    from datetime import datetime

    from everyhop.authzen.model import Search
    from everyhop.core.secret import Secret

TOKEN_LIFE: Final = timedelta(minutes=15)
KEY_BYTES: Final = 32
_MAC_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a page begins: at which candidate, with pages of ``limit`` (None: as long as they may be)."""

    position: int
    limit: int | None
    begun_at: int


class PageTokens:
    """Makes and reads page tokens under one key of 32 random bytes; safe to share between threads."""

    def __init__(self, key: Secret) -> None:
        self._key = key

    def seal(self, place: Place, search: Search, *, asker: str, snapshot: str) -> str:
        """Return the token for the page that begins at ``place``."""
        payload = json.dumps(
            [place.position, place.limit, place.begun_at, snapshot], separators=(",", ":")
        ).encode()
        return encode_base64url(self._mac(payload, search, asker) + payload)

    def open(self, token: str, search: Search, *, asker: str, snapshot: str, now: datetime) -> Place:
        """Return where the page begins; raises InputError unless everything is as it was on the page before."""
        try:
            raw = decode_base64url(token)
        except InputError as error:
            raise _not_valid() from error
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(payload, search, asker)):
            raise _not_valid()
        position, limit, begun_at, made_under = json.loads(payload)  # ours: the MAC says so
        if made_under != snapshot:
            raise InputError("the policy has changed since the first page: search again without page.token")
        if now.timestamp() - begun_at > TOKEN_LIFE.total_seconds():
            raise InputError("page.token is too old: search again without it")
        if search.page is not None and search.page.limit not in {None, limit}:
            raise InputError("page.limit is another one than on the page before")
        return Place(position=position, limit=limit, begun_at=begun_at)

    def _mac(self, payload: bytes, search: Search, asker: str) -> bytes:
        name = asker.encode()
        message = len(name).to_bytes(4, "big") + name + search.digest + payload
        return hmac.digest(self._key.reveal(), message, "sha256")


def _not_valid() -> InputError:
    return InputError(
        "page.token is not one for this query: repeat the request as it was, or begin without a token"
    )
