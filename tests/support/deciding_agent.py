# SPDX-License-Identifier: Apache-2.0
"""The agent's judgement of calls behind a mesh's sidecars: the product's own, without tokens."""

from __future__ import annotations

from tests.support.check_service import Checks
from tests.support.workloads import RealClock

from everyhop.api.ext_authz import _Question, denied, passed
from everyhop.control.credentials import Credentials
from everyhop.control.deciding import FactsDenied
from everyhop.control.policy_view import PolicyView
from everyhop.core.decision import Reason


class DecidingAgent(Checks):
    """Answers as the agent does: the same reading, the same judgement, the same messages; ``service`` is asked about."""

    def __init__(self, mesh, service):
        super().__init__(mesh)
        self.credentials = Credentials(tokens=None, exchanger=None, spend=None, clock=RealClock())
        self.credentials.apply_verifier(object())
        self.service = service
        self.asked = 0
        self.answer = self._decide

    def apply(self, snapshot):
        """Judge by another policy from now on; before it is given to sidecars."""
        self.mesh.call(self.credentials.apply_policy, PolicyView(snapshot))

    async def _decide(self, request):
        self.asked += 1
        question = _Question.read(request.message)
        try:
            return passed(await self.credentials.ingress(self.service, question.shown(request.principal)))
        except FactsDenied as error:
            status = 400 if error.why.decision.reason is Reason.AMBIGUOUS_PATH else 403
            return denied(status, error.code, question.decision, why=error.why)
