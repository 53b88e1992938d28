# SPDX-License-Identifier: Apache-2.0
"""The agent: attests workloads on one node and keeps what they need fresh.

Identity comes from the kernel, never from what a caller says.  The parts share one :class:`Changes`:
:class:`LaunchRegistry` knows what ``everyhop run`` started, :class:`IdentityCache` and :class:`TokenCache` hold
SVIDs, :class:`ServiceTokens` access tokens, :class:`WorkloadService` decides who gets which.  Transport and ``/proc`` are ports.
"""

from everyhop.agent.changes import Changes
from everyhop.agent.identities import Hold, IdentityCache
from everyhop.agent.launches import Launch, LaunchRegistry, LaunchState
from everyhop.agent.matching import NoIdentity, entitled, explain, needs_of, selectors_of
from everyhop.agent.minting import ServiceToken, TokenWish
from everyhop.agent.model import Grant, JwtIdentity, ProcessFacts, X509Context, X509Identity
from everyhop.agent.ports import ControlPlane, JwtResult, ProcessInspector, TokenMinter, X509Result
from everyhop.agent.service import Attested, WorkloadService
from everyhop.agent.service_tokens import Audience, ServiceTokens
from everyhop.agent.tokens import TokenCache

__all__ = [
    "Attested",
    "Audience",
    "Changes",
    "ControlPlane",
    "Grant",
    "Hold",
    "IdentityCache",
    "JwtIdentity",
    "JwtResult",
    "Launch",
    "LaunchRegistry",
    "LaunchState",
    "NoIdentity",
    "ProcessFacts",
    "ProcessInspector",
    "ServiceToken",
    "ServiceTokens",
    "TokenCache",
    "TokenMinter",
    "TokenWish",
    "WorkloadService",
    "X509Context",
    "X509Identity",
    "X509Result",
    "entitled",
    "explain",
    "needs_of",
    "selectors_of",
]
