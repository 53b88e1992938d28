# SPDX-License-Identifier: Apache-2.0
"""A policy compiled to one target and proven, again and again with other files in place of the compiled ones."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from everyhop.authz import Engine
from everyhop.core.errors import InputError
from everyhop.policy import parse_policy
from everyhop.policy.targets import ELSEWHERE
from everyhop.proving.compare import Prover
from everyhop.proving.model import Says
from everyhop.proving.oracle import Oracle
from everyhop.proving.space import Space
from everyhop.proving.systems import BUILDERS, Material, System, dns_of
from everyhop.targets.compiling import compile_policy
from everyhop.targets.intents import Intents
from everyhop.targets.view import View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.mutations import Mutant

    from everyhop.proving.model import Ask, TargetReport


@dataclass
class Bench:
    """One policy under one target, with everyhop's engine beside it where ``elsewhere`` says so."""

    files: Mapping[str, bytes]
    target: str
    elsewhere: tuple[str, ...] = ()
    survivors: list[Mutant] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.snapshot = parse_policy(self.files)
        self.engine = Engine(self.snapshot)
        self.intents = Intents(self.snapshot)
        self.oracle = Oracle(self.engine, self.intents)
        self.view = View(self.intents, self.target, self.elsewhere)
        self.compilation = compile_policy(self.snapshot, [self.target], beside=self.elsewhere)[0]
        self.output = {file.path: file.content for file in self.compilation.files}
        asks = Space(self.engine, self.intents, dns=dns_of([self.system(self.output)]))
        self.asks = [ask for ask in asks if self.oracle.answer(ask).says is not Says.EITHER]

    def system(self, files: Mapping[str, bytes]) -> System:
        return BUILDERS[self.target](
            Material(
                target=self.target, view=self.view, files=files, diagnostics=self.compilation.diagnostics
            )
        )

    def prove(self, files: Mapping[str, bytes] | None = None, asks: Any = None) -> TargetReport:
        system = self.system(self.output if files is None else files)
        elsewhere = [name for name in self.elsewhere if name in ELSEWHERE]
        prover = Prover(self.engine, self.intents, self.oracle, [system], elsewhere)
        return prover.prove(self.asks if asks is None else asks).targets[self.target]

    def ends(self, files: Mapping[str, bytes]) -> list[Mapping[str, bytes]]:
        """Return the files with one direction alone, where a target isolates pods in both: each end is broken by itself."""
        if not self.system(self.output).isolates:
            return []
        return [_one_way(files, way) for way in ("ingress", "egress")]

    def baseline(self) -> list[list[bool]]:
        found = []
        for files in (self.output, *self.ends(self.output)):
            system = self.system(files)
            found.append([system.evaluate(ask).allowed for ask in self.asks])
        return found

    def is_masked(self, mutant: Mutant, before: list[list[bool]]) -> bool:
        """Tell whether a mutant changes what one end by itself lets through, and the other end still refuses it."""
        try:
            for files, allowed in zip(self.ends(mutant.files), before[1:], strict=True):
                system = self.system(files)
                if any(
                    system.evaluate(ask).allowed is not was
                    for ask, was in zip(self.asks, allowed, strict=True)
                ):
                    return True
        except InputError:
            return True
        return False

    def is_noticed(self, mutant: Mutant, before: list[list[bool]]) -> bool:
        """Tell whether the system rejects the files of a mutant, or the proof has something to say of them."""
        try:
            system = self.system(mutant.files)
            changed: list[Ask] = []
            for ask, allowed in zip(self.asks, before[0], strict=True):
                if system.evaluate(ask).allowed is not allowed:
                    changed.append(ask)
                    if len(changed) in {1, 8, 64} and self._is_reported(mutant, changed):
                        return True
        except InputError:
            return True
        return bool(changed) and self._is_reported(mutant, changed)

    def _is_reported(self, mutant: Mutant, changed: list[Ask]) -> bool:
        report = self.prove(mutant.files, changed)
        return bool(report.wider or report.narrower or report.accepted)


def _one_way(files: Mapping[str, bytes], way: str) -> dict[str, bytes]:
    found = {}
    for name, content in files.items():
        documents = [
            one for one in yaml.load_all(content, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if one
        ]
        kept = []
        for document in documents:
            spec = dict(document.get("spec", {}))
            types = spec.get("policyTypes")
            if types is None and document["kind"] == "NetworkPolicy":
                types = ["Ingress", "Egress"] if "egress" in spec else ["Ingress"]
            spec = {key: value for key, value in spec.items() if not key.startswith(_OTHER[way])}
            if types is not None:
                spec["policyTypes"] = [one for one in types if one.lower() == way]
                if not spec["policyTypes"]:
                    continue  # an empty list means the default
            if "enableDefaultDeny" in spec:  # Cilium's word for being isolated
                spec["enableDefaultDeny"] = {way: True, _OTHER[way]: False}
            kept.append({**document, "spec": spec})
        found[name] = "\n".join(f"---\n{json.dumps(one)}" for one in kept).encode()
    return found


_OTHER = {"ingress": "egress", "egress": "ingress"}
