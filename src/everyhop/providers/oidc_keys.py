# SPDX-License-Identifier: Apache-2.0
"""The published keys of one OIDC issuer: discovered, fetched within limits, kept, and fetched again sparingly.

Only addresses that the policy names, or that the document at such an address names, are asked; never one from a
token.  No redirect is followed, no proxy of the environment is used, an answer has at most 1 MiB and five seconds.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from everyhop.core.errors import InputError, TokenError, Unavailable
from everyhop.jose.jwk import Jwk
from everyhop.jose.strict_json import parse_json_object
from everyhop.policy.model import UserIssuer
from everyhop.tokens.codes import TokenCode

MAX_BYTES: Final = 1024 * 1024
MAX_SECONDS: Final = 5.0
MAX_KEYS: Final = 100
MAX_URL: Final = 2048
COOLDOWN: Final = timedelta(seconds=30)
MAX_AGE: Final = timedelta(seconds=300)
LONGEST_STALE: Final = timedelta(hours=24)
"""How long keys are believed that cannot be fetched again."""

DISCOVERY: Final = "/.well-known/openid-configuration"
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

Fetch = Callable[[str], bytes]


def fetch(url: str) -> bytes:
    """Return the body of a 200 answer.  Raises Unavailable for anything else, too large, or too slow.

    ``url`` has been checked by :func:`check_url`.
    """
    client = httpx.Client(follow_redirects=False, timeout=MAX_SECONDS, trust_env=False)
    # The client's own limits are per operation: a server that sends a byte now and then would never exceed them.
    worker = ThreadPoolExecutor(1, thread_name_prefix="oidc")
    try:
        return worker.submit(_read, client, url).result(MAX_SECONDS)
    except TimeoutError:
        raise Unavailable(f"{url[:200]} did not answer within {MAX_SECONDS:g} s") from None
    except httpx.HTTPError as error:
        raise Unavailable(f"{url[:200]} cannot be read ({type(error).__name__})") from error
    finally:
        client.close()  # what the worker may still be doing fails, and it ends
        worker.shutdown(wait=False)


def _read(client: httpx.Client, url: str) -> bytes:
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code != HTTPStatus.OK:
            raise Unavailable(f"{url[:200]} answered {response.status_code}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Unavailable(f"{url[:200]} answered in a compressed form that was not asked for")
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > MAX_BYTES:
                raise Unavailable(f"{url[:200]} answered with more than {MAX_BYTES} bytes")
    return bytes(body)


def check_url(url: object, issuer: str) -> str:
    """Return a URL that may be asked: https, or http on this machine when the issuer itself is there.

    Raises InputError.
    """
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or len(url) > MAX_URL:
        raise InputError("an address in the issuer's document is not a URL")
    try:
        parts, home = urlsplit(url), urlsplit(issuer)
        _ = parts.port
    except ValueError as error:
        raise InputError("an address in the issuer's document is not a URL") from error
    is_local = parts.hostname in _LOOPBACK
    if is_local and home.hostname not in _LOOPBACK:
        raise InputError("an issuer elsewhere names an address on this machine")
    if not parts.hostname or "@" in parts.netloc:
        raise InputError("an address in the issuer's document names no host, or a password")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_local and home.scheme == "http"):
        raise InputError("an address in the issuer's document is not https")
    return url


@dataclass(frozen=True, slots=True)
class _Held:
    keys: Mapping[str | None, Jwk]
    fetched_at: datetime


class IssuerKeys:
    """The keys of one issuer.  One request at a time, one per cool-down; good keys outlive failed requests."""

    def __init__(self, issuer: UserIssuer, fetcher: Fetch = fetch) -> None:
        self._issuer = issuer
        self._fetch = fetcher
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._next_attempt: datetime | None = None
        self._error: Exception | None = None
        self.attempts = 0
        """How often the issuer was asked."""

    def key(self, kid: str | None, now: datetime) -> Jwk:
        """Return the key of a name, or the only key for a token that names none.

        Raises TokenError UNKNOWN_KEY_ID, or Unavailable when no keys are to be had.
        """
        held = self._usable(now)
        found = None if held is None else held.keys.get(kid)
        if held is None or found is None:
            self._refresh(now, wait=True)
        elif now - held.fetched_at >= MAX_AGE:
            self._refresh(now, wait=False)
        held = self._usable(now)
        if held is None:
            raise Unavailable(
                f"the keys of the issuer {self._issuer.issuer} are not to be had: {self._error}"
            )
        found = held.keys.get(kid)
        if found is None:
            raise TokenError(TokenCode.UNKNOWN_KEY_ID, "the issuer has no key of the name in the token")
        return found

    def _usable(self, now: datetime) -> _Held | None:
        held = self._held
        return held if held is not None and now - held.fetched_at < LONGEST_STALE else None

    def _refresh(self, now: datetime, *, wait: bool) -> None:
        if not self._lock.acquire(blocking=wait):
            return
        try:
            if self._next_attempt is not None and now < self._next_attempt:
                return
            # Set before the request: one that hangs must not be repeated by the next stranger either.
            self._next_attempt = now + COOLDOWN
            self.attempts += 1
            try:
                self._held = _Held(self._fetch_keys(), now)
                self._error = None
            except (Unavailable, InputError) as error:
                self._error = error
        finally:
            self._lock.release()

    def _fetch_keys(self) -> dict[str | None, Jwk]:
        url = self._issuer.jwks
        if url is None:
            url = self._discover()
        document = parse_json_object(self._fetch(check_url(url, self._issuer.issuer)), max_bytes=MAX_BYTES)
        return usable_keys(document)

    def _discover(self) -> str:
        """Return ``jwks_uri`` of the document that names exactly this issuer (OIDC Discovery section 4.3)."""
        address = check_url(self._issuer.issuer.rstrip("/") + DISCOVERY, self._issuer.issuer)
        document = parse_json_object(self._fetch(address), max_bytes=MAX_BYTES)
        if document.get("issuer") != self._issuer.issuer:
            raise InputError("the discovery document is of another issuer than the policy names")
        return check_url(document.get("jwks_uri"), self._issuer.issuer)


def usable_keys(document: Mapping[str, Any]) -> dict[str | None, Jwk]:
    """Return the keys that signatures can be checked with, by name.

    Foreign sets hold keys of all kinds: what is of another type, for encryption, weak or broken is passed over, and so
    are keys that share a name, because which one is meant cannot be told.  The only key also stands under None.
    Raises InputError when nothing is left.
    """
    entries = document.get("keys")
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_KEYS:
        raise InputError(f"the issuer's keys are not a list of 1 to {MAX_KEYS}")
    found = [key for entry in entries if (key := _signing_key(entry)) is not None]
    names = Counter(key.kid for key in found)
    keys: dict[str | None, Jwk] = {
        key.kid: key for key in found if key.kid is not None and names[key.kid] == 1
    }
    if len(found) == 1:
        keys[None] = found[0]
    if not keys:
        raise InputError("the issuer publishes no key that could be used")
    return keys


def _signing_key(entry: object) -> Jwk | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        return Jwk.from_members(entry)
    except InputError:
        return None
