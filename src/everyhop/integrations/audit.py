# SPDX-License-Identifier: Apache-2.0
"""Audit events of an application: who did what to which resource, with what outcome, in the sealed log.

    app = EveryhopMiddleware(AuditMiddleware(app))          # ASGI; AuditMiddleware stands inside

    audit.describe("invoice.void", resource=("invoice", number))   # what this request is, said by its handler
    audit.record("invoice.mail", resource=("invoice", number), to="customer")   # something more that it did

Who acts is the verified caller and user of the call being served, never a header.  Events go to the agent in the
background, which knows by the kernel which service tells them; without an agent they go to the logger
``everyhop.audit``, with one warning.  Where an action must not happen unrecorded, ``required=True`` has the agent take an
event with the outcome ``attempt`` to its disk first, and refuses the action with 503 where it does not.
"""

from __future__ import annotations

from typing import Final

from everyhop.integrations._audit import DENIED, Audit, describe
from everyhop.integrations._audit_asgi import AuditMiddleware
from everyhop.integrations._audit_wsgi import WsgiAuditMiddleware
from everyhop.integrations._own_audit import own_audit

__all__ = [
    "DENIED",
    "Audit",
    "AuditMiddleware",
    "WsgiAuditMiddleware",
    "audited",
    "describe",
    "record",
    "record_first",
]

record: Final = own_audit.record
record_first: Final = own_audit.record_first
audited: Final = own_audit.audited
