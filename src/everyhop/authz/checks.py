# SPDX-License-Identifier: Apache-2.0
"""Run the ``tests`` that a policy brings along, and name callers as people do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from everyhop.authz.engine import Engine
from everyhop.core.errors import NotFound
from everyhop.core.names import nearest
from everyhop.core.problems import Problem
from everyhop.policy.facts import NOTHING_KNOWN
from everyhop.policy.model import OUTSIDE
from everyhop.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    from everyhop.core.decision import Decision
    from everyhop.policy.model import PolicyTest, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """One test of the policy, and the decision it met."""

    __test__ = False  # not a test case of pytest

    index: int
    test: PolicyTest
    decision: Decision

    @property
    def is_passed(self) -> bool:
        """Tell whether the decision is the expected one."""
        return self.decision.effect.value == self.test.expect.value

    @property
    def call(self) -> str:
        """Return what was tried, e.g. ``GET /orders`` or ``tcp``."""
        return "tcp" if self.test.method is None else f"{self.test.method} {self.test.path}"

    def problem(self) -> Problem | None:
        """Return the failure as a mistake at the test's position, or None when it passed."""
        if self.is_passed:
            return None
        test, decision = self.test, self.decision
        rule = f" by {decision.rule}" if decision.rule else ""
        message = (
            f"tests[{self.index}]: {test.caller} -> {test.target} {self.call}: expected {test.expect}, "
            f"but it is {decision.effect}{rule} ({decision.reason})"
        )
        return Problem(code="test-failed", span=test.span, message=message)


def run_tests(snapshot: Snapshot, engine: Engine | None = None) -> list[TestResult]:
    """Decide every test of the policy, in order; a policy with a failing test should not be put in force."""
    engine = engine or Engine(snapshot)
    results = []
    for index, test in enumerate(snapshot.tests):
        caller = resolve_caller(snapshot, test.caller)
        if test.method is None or test.path is None:
            decision = engine.decide_tcp(caller=caller, target=test.target, context=test.context)
        else:
            decision = engine.decide(
                caller=caller,
                target=test.target,
                method=test.method,
                path=test.path,
                context=None if test.context == NOTHING_KNOWN else test.context,
            )
        results.append(TestResult(index=index, test=test, decision=decision))
    return results


def resolve_caller(snapshot: Snapshot, text: str) -> str:
    """Return the SPIFFE ID (text, normal form) that a service name or a SPIFFE ID stands for; ``outside`` is itself.

    Raises NotFound for a name that is not declared, with a suggestion; InputError for a malformed SPIFFE ID.
    """
    if text == OUTSIDE:
        return OUTSIDE
    if "/" in text:
        return str(SpiffeId.parse(text))
    service = snapshot.services.get(text)
    if service is None:
        near = nearest(text[:80], snapshot.services)
        raise NotFound(f"unknown service {text[:80]!r}", hint=f"did you mean {near!r}?" if near else None)
    return str(service.spiffe_id)
