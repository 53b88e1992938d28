# SPDX-License-Identifier: Apache-2.0
"""One look at the server's face from outside: does it serve keys, under a certificate that is its own."""

from __future__ import annotations

import http.client
import json
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from everyhop.core.errors import Unavailable
from everyhop.runtime.face_address import SERVER_PATH
from everyhop.runtime.mtls import client_context, peer_spiffe_id

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS: Final = 3.0


def probe_face(url: str, bundle: Sequence[bytes]) -> str:
    """Fetch the JWKS as any relying party does; say what was found.

    ``bundle`` are the authorities of the trust domain, DER.  Raises Unavailable with the reason.
    """
    parts = urlsplit(url)
    context = client_context((), b"", bundle)
    context.check_hostname = True
    connection = http.client.HTTPSConnection(
        str(parts.hostname), parts.port, context=context, timeout=SECONDS
    )
    try:
        connection.connect()
        secure = connection.sock
        assert isinstance(secure, ssl.SSLSocket)  # noqa: S101  # what HTTPS makes
        if not peer_spiffe_id(secure).endswith(SERVER_PATH):
            raise Unavailable(f"{url} is served by {peer_spiffe_id(secure)}, not by the face", retry=False)
        left = _life(secure)
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != http.client.OK:
            raise Unavailable(f"{url} answers {answer.status}")
        keys = len(json.loads(body)["keys"])
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise Unavailable(f"{url} does not answer as it should: {type(error).__name__}: {error}") from error
    finally:
        connection.close()
    return f"{url}: serves {keys} key(s), SVID for another {int(left.total_seconds() // 60)} min"


def _life(secure: ssl.SSLSocket) -> timedelta:
    certificate = secure.getpeercert() or {}
    end = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    return datetime.fromtimestamp(end, UTC) - datetime.now(UTC)
