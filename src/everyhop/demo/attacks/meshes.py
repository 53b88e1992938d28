# SPDX-License-Identifier: Apache-2.0
"""One policy in other systems: compiled and proven, refused where it cannot be held, and widened by hand.

Nothing of these systems runs here; what they decide is evaluated by everyhop's evaluators of each.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from everyhop.demo.model import Attempt, Seen
from everyhop.policy import parse_policy
from everyhop.proving import describe, prove_policy
from everyhop.targets import compile_policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from everyhop.demo.range import Range

_THEME: Final = "every mesh"
_POLICY: Final = """\
version: 1
trust_domain: cluster.local
services:
  checkout: {}
  payment-processor: {operations: {charge: POST /v1/payments}}
allow:
  - {from: checkout, to: payment-processor, operations: [charge]CONDITION}
targets: {namespace: shop, cilium: {accept: [mtls]}}
"""


def _text(condition: str = "") -> dict[str, bytes]:
    return {"payment.yaml": _POLICY.replace("CONDITION", condition).encode()}


def _proven(target: str) -> Seen:
    proof = prove_policy(parse_policy(_text()), [target])
    return Seen(text=proof.verdict.value, note=f"{proof.requests} requests asked of both")


def _widened(target: str, old: bytes, new: bytes) -> Seen:
    """Edit one line of what was compiled, as somebody in a hurry would, and prove it again."""
    snapshot = parse_policy(_text())
    (compiled,) = compile_policy(snapshot, [target])
    files = {file.path: file.content.replace(old, new, 1) for file in compiled.files}
    proof = prove_policy(snapshot, [target], manifests=files)
    changed = any(files[file.path] != file.content for file in compiled.files)
    found = describe(proof)["counterexamples"]
    return Seen(
        text=proof.verdict.value if changed else "nothing was edited",
        note=found[0]["says"] if found else None,
    )


def _refused(target: str) -> Seen:
    (compiled,) = compile_policy(parse_policy(_text(", when: 'now.getHours() < 18'")), [target])
    codes = [one.code for one in compiled.diagnostics if one.is_error]
    return Seen(text=codes[0] if codes else "compiled")


def attacks() -> list[Attempt]:
    """Return the attempts."""
    everywhere: dict[str, Callable[[], Seen]] = {
        **{f"compiled to {target}": partial(_proven, target) for target in ("istio", "linkerd", "cilium")},
    }
    edits: dict[str, Callable[[], Seen]] = {
        "Istio: any method, by hand": partial(_widened, "istio", b"- POST", b'- "*"'),
        "Istio: any caller, by hand": partial(
            _widened, "istio", b"- cluster.local/ns/shop/sa/checkout", b'- "*"'
        ),
        "Linkerd: any identity, by hand": partial(
            _widened, "linkerd", b"- checkout.shop.serviceaccount.identity.linkerd.cluster.local", b'- "*"'
        ),
        "Cilium: the path no longer anchored": partial(_widened, "cilium", b"/v1/payments", b"/v1/.*"),
    }
    return [
        *(_attempt(name, "equal", run) for name, run in everywhere.items()),
        *(_attempt(name, "wider", run) for name, run in edits.items()),
        _attempt("a condition, on Linkerd", "linkerd.condition", partial(_refused, "linkerd")),
    ]


def _attempt(name: str, expected: str, ask: Callable[[], Seen]) -> Attempt:
    def run(field: Range) -> Seen:
        del field
        return ask()

    return Attempt(theme=_THEME, name=name, expected=expected, run=run)
