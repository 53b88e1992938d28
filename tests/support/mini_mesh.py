# SPDX-License-Identifier: Apache-2.0
"""A mesh of thirty lines, exact but for what it is told to break: what the proof itself is tested against."""

import re
from dataclasses import dataclass, replace

from everyhop.authz import Engine
from everyhop.evaluators.model import Outcome, Wire
from everyhop.policy import parse_policy
from everyhop.policy.model import SegmentKind
from everyhop.proving.compare import Prover
from everyhop.proving.oracle import Oracle
from everyhop.proving.space import Space
from everyhop.proving.systems import System
from everyhop.targets.compiling import Feature
from everyhop.targets.intents import Intents
from everyhop.targets.view import View

_CLEAN = re.compile(r"(/(?!\.\.?(/|$))([A-Za-z0-9_~.:@!$&'()*+,=-]|%20)+)*/?")


@dataclass(frozen=True)
class Entry:
    """One permission: who may send what to whom."""

    name: str
    service: str
    port: int
    callers: frozenset
    method: str = ""
    pattern: str = ""


class MiniMesh:
    def __init__(self, entries, *, is_strict=True, asks=None):
        self.entries = entries
        self.is_strict = is_strict
        self.asks = asks

    def evaluate(self, request):
        if request.dns_name is not None:
            return Outcome(allowed=False, why="nothing leaves")
        peer = request.peer
        if peer is None and not self.is_strict:
            peer = f"spiffe://shop.example/ns/{request.source.namespace}/sa/{request.source.service_account}"
        for entry in self.entries:
            if (
                entry.service != request.target.name
                or entry.port != request.port
                or peer not in entry.callers
            ):
                continue
            is_tcp = entry.method == ""
            if is_tcp is not (request.wire is Wire.TCP):
                continue
            if is_tcp or (
                entry.method in ("*", request.method) and re.fullmatch(entry.pattern, request.bare_path)
            ):
                return Outcome(allowed=True, why="it matches", by=entry.name, asks=self.asks)
        return Outcome(allowed=False, why="no entry matches")


def pattern_of(route):
    shown = {
        SegmentKind.LITERAL: lambda s: re.escape(s.text),
        SegmentKind.PARAMETER: lambda s: r"[^/]+",
        SegmentKind.REST: lambda s: r".*",
    }
    plain = "/" + "/".join(shown[s.kind](s) for s in route.segments)
    return rf"(?={_CLEAN.pattern}$){plain}"


def entries_of(view):
    found = []
    for service in view.intents:
        for door in service.doors:
            callers = frozenset(view.intents.mesh_identity(grant.caller) for grant in view.grants(door))
            operation = door.operation
            found.append(
                Entry(
                    name=f"Mini {service.place.namespace}/{service.name}-{door.name}",
                    service=service.name,
                    port=service.port,
                    callers=callers,
                    method="" if operation is None else operation.route.method,
                    pattern="" if operation is None else pattern_of(operation.route),
                )
            )
    return found


class World:
    """A policy with the mini mesh in linkerd's place: no tokens, no conditions."""

    def __init__(self, text, beside=(), target="linkerd", **options):
        self.snapshot = parse_policy({"everyhop.yaml": text.encode()})
        self.engine = Engine(self.snapshot)
        self.intents = Intents(self.snapshot)
        self.view = View(self.intents, target, beside)
        self.entries = entries_of(self.view)
        self.options = options
        self.beside = beside
        self.oracle = Oracle(self.engine, self.intents)

    def asks(self):
        return list(Space(self.engine, self.intents))

    def prove(self, entries=None, diagnostics=(), **options):
        mesh = MiniMesh(self.entries if entries is None else entries, **{**self.options, **options})
        system = System(name=self.view.target, evaluator=mesh, view=self.view, diagnostics=diagnostics)
        prover = Prover(self.engine, self.intents, self.oracle, [system], self.beside)
        proof = prover.prove(Space(self.engine, self.intents))
        return proof.targets[self.view.target]

    def broken(self, index, **changes):
        entries = list(self.entries)
        entries[index] = replace(entries[index], **changes)
        return entries


__all__ = ["Entry", "Feature", "MiniMesh", "World", "entries_of", "pattern_of"]
