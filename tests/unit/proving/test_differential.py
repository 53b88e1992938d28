# SPDX-License-Identifier: Apache-2.0
"""Generated policies, compiled to every target and proven: never wider, and never narrower without a word of it.

``make test`` tries the same 300 policies each time, the slow run (``make test-all``) 10,000 (``EVERYHOP_PROOFS`` says another number).
"""

import os

import pytest
from hypothesis import Phase, given, settings
from tests.support.target_policies import target_policies

from everyhop.proving import prove_policy
from everyhop.proving.rendering import words_of
from everyhop.proving.systems import BUILDERS
from everyhop.targets import compile_policy

FEW = 300
MANY = int(os.environ.get("EVERYHOP_PROOFS", "10000"))
TARGETS = tuple(BUILDERS)
OUTER_BOUNDS = {"clusternetworkpolicy"}
"""What cannot refuse everybody by itself, and says so as an error of compiling."""

BESIDE = ((), ("sdk",), ("authorizer",))
WHOLE = (Phase.explicit, Phase.reuse, Phase.generate)
"""Without shrinking: a proof takes a tenth of a second, and what differs says by itself where."""


def hops(index):
    """Return a target and what stands beside it, all of them in turn."""
    return TARGETS[index % len(TARGETS)], BESIDE[index // len(TARGETS) % len(BESIDE)]


def holds_egress(snapshot, target, beside):
    """Tell whether compiling found a holder; without one it ends with an error, and hosts outside are open to all."""
    diagnostics = compile_policy(snapshot, [target], beside=beside)[0].diagnostics
    return not any(one.is_error and one.code == f"{target}.egress" for one in diagnostics)


def check(snapshot, target, beside):
    proof = prove_policy(snapshot, [target], beside=beside)
    report = proof.targets[target]
    if target not in OUTER_BOUNDS or "sdk" in beside:
        wider = [
            one for one in report.wider if not one.ask.is_egress or holds_egress(snapshot, target, beside)
        ]
        assert [words_of(one) for one in wider[:5]] == []
    assert [words_of(one) for one in report.unannounced[:5]] == []


@pytest.mark.parametrize("beside", BESIDE, ids=("alone", "sdk", "authorizer"))
@pytest.mark.parametrize("target", TARGETS)
def test_no_target_is_ever_wider(target, beside):
    @settings(max_examples=max(1, FEW // (len(TARGETS) * len(BESIDE))), phases=WHOLE, derandomize=True)
    @given(target_policies())
    def proven(snapshot):
        check(snapshot, target, beside)

    proven()


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("beside", BESIDE, ids=("alone", "sdk", "authorizer"))
@pytest.mark.parametrize("target", TARGETS)
def test_no_target_is_ever_wider_over_night(target, beside):
    @settings(max_examples=max(1, MANY // (len(TARGETS) * len(BESIDE))), phases=WHOLE)
    @given(target_policies())
    def proven(snapshot):
        check(snapshot, target, beside)

    proven()
