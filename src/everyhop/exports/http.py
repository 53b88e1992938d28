# SPDX-License-Identifier: Apache-2.0
"""One POST to the URL of the settings and to nowhere else: no proxies of the environment, no redirects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from everyhop.core.errors import SettingsError, Unavailable
from everyhop.exports.ports import RefusedError
from everyhop.exports.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from everyhop.exports.model import TlsSettings

MAX_ANSWER: Final = 64 * 1024
GONE: Final = 410
TOO_LARGE: Final = 413
_SOON: Final = frozenset({408, 429, 500, 502, 503, 504})
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_LONGEST_AFTER: Final = timedelta(hours=1)


def check_url(url: str) -> str:
    """Return ``url``; raises SettingsError for anything but https, or http on this machine, and for credentials."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise SettingsError("url is not a URL") from error
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise SettingsError("url is not a URL")
    if parts.username or parts.password or parts.fragment:
        raise SettingsError(
            "url has no user, password or fragment", hint="secrets come from a file or variable"
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise SettingsError("url begins with https://", hint="http:// only to this machine")
    return url


class Poster:
    """Keeps one connection to one URL.  Used from one event loop, one call at a time."""

    def __init__(self, url: str, tls: TlsSettings) -> None:
        self._url = check_url(url)
        self._tls = tls
        self._client: httpx.AsyncClient | None = None

    async def post(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        """Return the body, at most 64 KiB, of an answer with a status of 2xx.

        Raises RefusedError for any other status, and Unavailable without an answer.  The time is the caller's to bound.
        """
        import httpx  # only where something is sent

        try:
            client = self._client = self._client or self._new()
            async with client.stream("POST", self._url, content=body, headers=dict(headers)) as answer:
                content = b""
                async for part in answer.aiter_raw():
                    content += part
                    if len(content) > MAX_ANSWER:
                        break
                if answer.is_success:
                    if len(content) > MAX_ANSWER:
                        raise Unavailable(f"the receiver's answer has more than {MAX_ANSWER} bytes")
                    return content
                raise _refusal(answer.status_code, answer.headers.get("retry-after"))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            # The text of these may hold what the receiver sent; its class says what went wrong.
            raise Unavailable(
                f"the receiver does not answer: {type(error).__name__}: {_cause(error)}"
            ) from error

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _new(self) -> httpx.AsyncClient:
        import httpx  # only where something is sent

        secure = urlsplit(self._url).scheme == "https"
        return httpx.AsyncClient(
            verify=client_context(self._tls) if secure else True,
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # noqa: S113  # the exporter bounds the delivery as a whole
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        )


def _refusal(status: int, after: str | None) -> RefusedError:
    return RefusedError(
        f"the receiver answers with status {status}",
        after=_after(after),
        too_large=status == TOO_LARGE,
        is_patient=status not in _SOON and status != TOO_LARGE,
        is_final=status == GONE,
    )


def _after(text: str | None) -> timedelta | None:
    """Read Retry-After (RFC 9110 section 10.2.3), at most an hour; None for what it does not say properly."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return min(timedelta(seconds=int(text[:9])), _LONGEST_AFTER)
    try:
        wait = parsedate_to_datetime(text) - datetime.now(UTC)
    except (TypeError, ValueError):
        return None
    return max(timedelta(0), min(wait, _LONGEST_AFTER))


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return "".join(c if c.isprintable() else "_" for c in str(error))[:200]
