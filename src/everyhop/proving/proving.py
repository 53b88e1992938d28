# SPDX-License-Identifier: Apache-2.0
"""From a snapshot, the names of targets and files to a proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.authz.engine import Engine
from everyhop.core.errors import InputError
from everyhop.policy.targets import ELSEWHERE, OPTIONS
from everyhop.proving.compare import Prover
from everyhop.proving.oracle import Oracle
from everyhop.proving.space import Space
from everyhop.proving.systems import BUILDERS, Material, System, dns_of
from everyhop.targets.compiling import compile_intents
from everyhop.targets.intents import Intents
from everyhop.targets.matrix import MATRIX
from everyhop.targets.view import View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from everyhop.policy.model import Snapshot
    from everyhop.proving.model import Proof
    from everyhop.proving.systems import Builder


def prove_policy(
    snapshot: Snapshot,
    targets: Sequence[str],
    *,
    manifests: Mapping[str, bytes] | None = None,
    beside: Iterable[str] = (),
    builders: Mapping[str, Builder] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Proof:
    """Prove targets that stand together on the same hops, with ``beside`` (``sdk``, ``authorizer``, or further targets).

    ``manifests`` are the files in force, name to content; without them the policy is compiled and its output is proven.
    ``builders`` makes systems that this room does not (a real proxy).  Raises InputError for a target that cannot be proven, and
    for manifests that a system would reject.
    """
    known = {**BUILDERS, **(builders or {})}
    engine = Engine(snapshot)
    intents = Intents(snapshot, engine.index)
    together = tuple(dict.fromkeys((*targets, *beside)))
    for name in together:
        if name not in OPTIONS and name not in ELSEWHERE:
            raise InputError(f"there is no target {name[:60]!r}", hint="targets: " + ", ".join(known))
    views = {name: View(intents, name, together) for name in together if name not in ELSEWHERE}
    further = tuple(dict.fromkeys((*together, *(name for view in views.values() for name in view.beside))))
    elsewhere = tuple(name for name in further if name in ELSEWHERE)
    enforcing = tuple(name for name in further if name not in ELSEWHERE)
    for name in enforcing:
        if name not in known:
            hint = "targets that can be proven: " + ", ".join(known)
            kind = "only helps others and decides nothing" if name not in MATRIX else "cannot be proven here"
            raise InputError(f"{name[:60]} {kind}", hint=hint)
    compiled = {one.target: one for one in compile_intents(intents, enforcing, beside=elsewhere)}
    systems: list[System] = []
    for name in enforcing:
        files = (
            manifests if manifests is not None else {file.path: file.content for file in compiled[name].files}
        )
        view = View(intents, name, further)
        material = Material(target=name, view=view, files=files, diagnostics=compiled[name].diagnostics)
        systems.append(known[name](material))
    prover = Prover(engine, intents, Oracle(engine, intents), systems, elsewhere)
    return prover.prove(Space(engine, intents, dns=dns_of(systems)), progress)
