# SPDX-License-Identifier: Apache-2.0
"""A receiver of Standard Webhooks: signed by HMAC-SHA256, in order, one record or a batch a message.

The headers are those of the specification: ``webhook-id`` (the same for every try of the same records),
``webhook-timestamp`` (seconds, of this try) and ``webhook-signature`` (one ``v1,BASE64`` for each secret, so that a
receiver may have either while secrets change).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final

import msgspec

from everyhop import __version__
from everyhop.core.clock import rfc3339
from everyhop.core.errors import Unavailable
from everyhop.exports.http import Poster
from everyhop.exports.model import Format

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from everyhop.core.clock import Clock
    from everyhop.core.secret import Secret
    from everyhop.exports.model import Item, Told, WebhookSettings

PREFIX: Final = b"whsec_"
_SHORTEST, _LONGEST = 24, 64  # bytes of a secret
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,100}", re.ASCII)


def key_of(secret: Secret) -> bytes:
    """Return the key of a ``whsec_`` secret.  Raises Unavailable for any other text; the message does not hold it."""
    text = secret.reveal().strip()
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise Unavailable("a webhook's secret is whsec_ and base64") from error
    if not text.startswith(PREFIX) or not _SHORTEST <= len(key) <= _LONGEST:
        raise Unavailable(f"a webhook's secret is whsec_ and the base64 of {_SHORTEST} to {_LONGEST} bytes")
    return key


def signature_of(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return one signature of the header: ``v1,`` and base64."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def message_id_of(items: Sequence[Item]) -> str:
    """Return the id of a message: the record's own where it is one and plain, else a hash of all ids."""
    if len(items) == 1 and _PLAIN_ID.fullmatch(items[0].record.id):
        return items[0].record.id
    digest = hashlib.sha256(msgspec.json.encode([item.record.id for item in items]))
    return f"batch_{digest.hexdigest()}"


class WebhookSink:
    """The ``Sink`` port on a webhook.  A 2xx answer confirms the whole message."""

    def __init__(self, settings: WebhookSettings, render: Callable[[Item], bytes], clock: Clock) -> None:
        self._settings = settings
        self._render = render
        self._clock = clock
        self._poster = Poster(settings.url, settings.tls)
        self._done = 0

    async def send(self, items: Sequence[Item]) -> int:
        """Post one message."""
        body = await asyncio.to_thread(self._body, items)
        now = self._clock.now()
        message_id, timestamp = message_id_of(items), int(now.timestamp())
        keys = [key_of(read()) for read in self._settings.secrets]
        headers = {
            "content-type": "application/json",
            "user-agent": f"everyhop/{__version__}",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signature_of(key, message_id, timestamp, body) for key in keys),
        }
        await self._poster.post(body, headers)
        self._done = items[-1].index
        return self._done

    async def settle(self) -> int:
        """Return the last index: an answer has confirmed it."""
        return self._done

    async def close(self) -> int:
        """Close the connection."""
        done, self._done = self._done, 0
        await self._poster.close()
        return done

    def told(self) -> list[Told]:
        """Return nothing: what a webhook has to say are errors."""
        return []

    def _body(self, items: Sequence[Item]) -> bytes:
        records = [self._data(item) for item in items]
        first = items[0].record
        is_one = self._settings.batch == 1
        return msgspec.json.encode(
            {
                "type": f"everyhop.{first.kind.value}" if is_one else "everyhop.records",
                "timestamp": rfc3339(first.time),
                "data": records[0] if is_one else {"records": records},
            }
        )

    def _data(self, item: Item) -> dict[str, object]:
        content = self._render(item)
        event = content.decode() if self._settings.format is Format.CEF else msgspec.Raw(content)
        return {"id": item.record.id, "index": item.index, "event": event}
