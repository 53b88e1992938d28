# SPDX-License-Identifier: Apache-2.0
"""Signed payloads, for what cannot speak TLS to the receiver: queues, webhooks, calls through a strange proxy.

The sender signs with the key of its X509-SVID and sends the chain along; the receiver trusts nothing of it before
the chain leads to its own bundle and to a SPIFFE ID that it allows.  Every signature names its audience, ends, and
is good once.  ``MessageSigner`` and ``MessageVerifier`` make and take a detached JWS; ``HttpSigner`` and
``HttpVerifier`` speak RFC 9421 (extra ``signatures``).
"""

from everyhop.sdk.signatures.http_messages import HttpSigner, HttpVerifier
from everyhop.sdk.signatures.http_model import HttpMessage
from everyhop.sdk.signatures.jws_messages import MessageSigner, MessageVerifier
from everyhop.sdk.signatures.model import Reason, Sender
from everyhop.sdk.signatures.trust import Trust

__all__ = [
    "HttpMessage",
    "HttpSigner",
    "HttpVerifier",
    "MessageSigner",
    "MessageVerifier",
    "Reason",
    "Sender",
    "Trust",
]
