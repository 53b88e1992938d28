# SPDX-License-Identifier: Apache-2.0
"""Service contexts for tests, built from a policy text by the very code that an agent builds them with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from everyhop.control.contexts import ServiceContexts
from everyhop.control.messages import TokenTruthDocument
from everyhop.core.errors import NotFound
from everyhop.core.secret import Secret
from everyhop.policy.parse import parse_policy
from everyhop.sdk.context import ServiceContext
from everyhop.sdk.model import Caller, User, Verified
from everyhop.sdk.trace import new_trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.testing.issuer import Issuer

POLICY_FILE = "everyhop.yaml"


def context_document(
    policy: str | Mapping[str, bytes],
    service: str,
    issuer: Issuer,
    *,
    endpoints: Mapping[str, tuple[tuple[str, int], ...]] | None = None,
) -> bytes:
    """Return the context document of a service: JSON, as an agent sends it.

    ``policy`` is the text of a policy, or its files by name (JSON Schemas of bodies among them).  Raises PolicyError
    for a policy that does not hold, NotFound for a service that it does not declare.
    """
    files = {POLICY_FILE: policy.encode()} if isinstance(policy, str) else policy
    snapshot = parse_policy(files)
    if service not in snapshot.services:
        raise NotFound(f"the policy declares no service {service!r}")
    truth: dict[str, Any] = {
        "issuer": issuer.issuer,
        "trust_domain": str(snapshot.trust_domain),
        "sequence": issuer.sequence,
        "jwks": issuer.jwks,
        "revoked": issuer.revoked,
    }
    document = msgspec.json.decode(msgspec.json.encode(truth), type=TokenTruthDocument)
    return ServiceContexts().document(snapshot, service, document, endpoints or {})


def service_context(
    policy: str | Mapping[str, bytes],
    service: str,
    issuer: Issuer,
    *,
    endpoints: Mapping[str, tuple[tuple[str, int], ...]] | None = None,
) -> ServiceContext:
    """Return the context of a service, ready for a guard; arguments and errors as :func:`context_document`."""
    return ServiceContext.parse(context_document(policy, service, issuer, endpoints=endpoints))


def verified_call(
    operation: str,
    *,
    caller: str = "spiffe://shop.example/service/storefront",
    user: User | str | None = None,
    txn_token: str | None = None,
) -> Verified:
    """Return a verified call to open with ``everyhop.sdk.serving``, for unit tests of code behind the guard.

    ``user`` may be a subject's name; nothing is verified here, which is the point.
    """
    whom = User(subject=user, txn="test", expires_at=2**40) if isinstance(user, str) else user
    return Verified(
        caller=Caller(spiffe_id=caller),
        user=whom,
        operation=operation,
        decision_id="00000000-0000-0000-0000-000000000000",
        snapshot="0" * 64,
        trace=new_trace(),
        txn_token=None if txn_token is None else Secret(txn_token.encode("ascii")),
    )
