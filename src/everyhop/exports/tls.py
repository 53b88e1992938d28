# SPDX-License-Identifier: Apache-2.0
"""TLS towards receivers: always verified, by name."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from everyhop.core.errors import Unavailable

if TYPE_CHECKING:
    from everyhop.exports.model import TlsSettings


def client_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return a context of TLS 1.2 or later that demands a certificate of the right name.

    The files are read anew each time, so that they can be renewed while the server runs.  Raises Unavailable for
    files that cannot be used.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=settings.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.certificate is not None:
            context.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ssl.SSLError) as error:
        raise Unavailable(f"the TLS files of an export cannot be used: {error}") from error
    return context
