# SPDX-License-Identifier: Apache-2.0
"""What is asked when a policy is proven, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from everyhop.policy.facts import NOTHING_KNOWN, Context

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.evaluators.model import Outcome, Request, Workload
    from everyhop.policy.model import Operation
    from everyhop.targets.model import Feature


class CallerKind(StrEnum):
    """What a caller is to the policy."""

    SERVICE = "service"  # declared, with its own certificate
    CANARY = "canary"  # declared, and nobody runs it
    GATEWAY = "gateway"  # who carries callers from outside
    STRANGER = "stranger"  # of the trust domain, and not declared
    OWN = "everyhop"  # one of everyhop's own processes
    FOREIGN = "foreign"  # the same path in another trust domain
    ALIKE = "alike"  # an account or namespace that only looks like a caller's
    LABELS = "labels"  # a certificate of its own, and the labels of a caller
    UNCERTIFIED = "uncertified"  # a caller's own pod without a certificate
    NOBODY = "nobody"  # no certificate, no labels, from inside or outside
    PROBE = "probe"  # no certificate, from a network of which probes come


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who calls.

    ``name`` is for people.  ``policy_id`` is what the policy knows it by: a SPIFFE ID, ``outside``, or None without a
    certificate.  ``peer`` is the SPIFFE ID in the mesh's form and ``own_peer`` in the policy's, both None for plaintext.
    ``claims_to_be`` is the service that it is or poses as, with whose token too; None for nobody.
    """

    kind: CallerKind
    name: str
    workload: Workload
    policy_id: str | None
    peer: str | None
    own_peer: str | None
    claims_to_be: str | None = None


class TokenState(StrEnum):
    """The access token that a call carries."""

    NONE = "none"
    GOOD = "good"
    WRONG_AUDIENCE = "for another service"
    OTHER_OPERATION = "for another operation"
    WHOLE_SERVICE = "for the whole service"
    ONE_OPERATION = "for this operation alone"
    AUDIENCE_AFTER = "for an audience that starts alike"
    AUDIENCE_BEFORE = "for an audience that ends alike"
    NARROW_SCOPE = "with a scope that lacks the operation"
    BARE_SCOPE = "with the bare name of the operation as its scope"
    SCOPE_AFTER = "with a scope that starts alike"
    SCOPE_BEFORE = "with a scope that ends alike"
    BARE_SCOPE_AFTER = "with a bare scope that starts alike"
    BARE_SCOPE_BEFORE = "with a bare scope that ends alike"
    SUBJECT_AFTER = "of a caller that starts alike"
    SUBJECT_BEFORE = "of a caller that ends alike"
    WRONG_ISSUER = "of another issuer"
    EXPIRED = "expired"
    FORGED = "forged"
    OTHER_SUBJECT = "of another caller"
    STOLEN = "bound to another certificate"
    USED = "used before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, with what the policy knows of it and no other system sees.

    ``door`` is the door that it was made for, ``operation`` its operation; ``variation`` says in words how it differs from a
    plain call of that door ("" for none).  ``aspect`` is the feature on which the answer turns.  ``rank`` orders examples: the
    plainest first.  ``is_egress``: the request leaves for ``request.dns_name``.  ``is_bound``: it goes to what is no service of
    the policy, and only systems that isolate pods in both directions are asked; ``is_dns``: to the cluster's DNS.
    """

    caller: Caller
    service: str
    door: str
    request: Request
    aspect: Feature
    operation: Operation | None = None
    variation: str = ""
    rank: int = 0
    token: TokenState = TokenState.NONE
    context: Context = NOTHING_KNOWN
    is_body_valid: bool = True
    is_egress: bool = False
    is_bound: bool = False
    is_dns: bool = False


class Says(StrEnum):
    """What the policy says of a request."""

    ALLOW = "allow"
    DENY = "deny"
    EITHER = "either"  # the policy is silent: another layer decides


@dataclass(frozen=True, slots=True)
class Answer:
    """What the policy says, and by which rule or reason; ``is_ambiguous``: the path has a second reading, whatever the rules say."""

    says: Says
    why: str
    is_ambiguous: bool = False


class Verdict(StrEnum):
    """How what is enforced compares with the policy; the worst of what was found."""

    EQUAL = "equal"
    NARROWER = "narrower"
    WIDER = "wider"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Requests of one kind that are answered otherwise than by the policy.

    ``ask`` is the plainest of ``count``; ``policy`` is what the policy says of it, ``outcome`` what ``target`` did.  ``place`` is the
    file and line of the object that decided.  ``covered_by`` names what stands beside and refuses it all the same.
    ``announced`` holds the codes of the diagnostics that said so when the policy was compiled; ``accepted`` is the feature that
    the operator accepted to be held by nobody.
    """

    target: str
    ask: Ask
    policy: Answer
    outcome: Outcome
    count: int = 1
    place: str | None = None
    covered_by: str | None = None
    announced: tuple[str, ...] = ()
    accepted: Feature | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetReport:
    """What was found of one target."""

    target: str
    requests: int
    wider: tuple[Difference, ...]
    narrower: tuple[Difference, ...]
    accepted: tuple[Difference, ...]
    beside: tuple[str, ...] = ()

    @property
    def unannounced(self) -> tuple[Difference, ...]:
        """Return what is narrower although nothing said so."""
        return tuple(one for one in self.narrower if not one.announced)

    @property
    def verdict(self) -> Verdict:
        """Return the worst of it."""
        return Verdict.WIDER if self.wider else Verdict.NARROWER if self.narrower else Verdict.EQUAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was found of all targets; ``requests`` is the number of questions that were put to each of them."""

    requests: int
    targets: Mapping[str, TargetReport] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Return the worst of the verdicts."""
        found = {one.verdict for one in self.targets.values()}
        return max(found, key=list(Verdict).index, default=Verdict.EQUAL)
