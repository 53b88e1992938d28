# SPDX-License-Identifier: Apache-2.0
"""Every request of the space asked of the policy and of what is enforced; what is answered otherwise is kept.

Targets that are proven together stand on the same hops, as they do when they are compiled together: a request gets through if
all of them let it.  A target that by itself lets through what it claims to hold is wider all the same, even where another one
beside it refuses: the next who takes that one away would not know.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from everyhop.evaluators.model import Outcome, Wire
from everyhop.proving.model import CallerKind, Difference, Proof, Says, TargetReport
from everyhop.proving.variations import plain_path
from everyhop.targets.model import Feature, Fidelity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from everyhop.authz.engine import Engine
    from everyhop.proving.model import Answer, Ask
    from everyhop.proving.oracle import Oracle
    from everyhop.proving.systems import System
    from everyhop.targets.intents import Door, Grant, Intents

STEP: Final = 2_000
"""Requests between two calls of ``progress``."""

_UNSEEN: Final = {
    "sdk": frozenset({Feature.EGRESS}),
    "authorizer": frozenset({Feature.EGRESS, Feature.BODY, Feature.TCP}),
}
"""What everyhop's own engine does not see on a hop."""


_OF_TOKENS: Final = frozenset({"tokens", "token-elsewhere"})
"""What compilers say of tokens beside the feature itself: that no issuer is known, that a bad one is refused wherever it comes."""


class Prover:
    """Compares the systems of one hop with the policy.

    ``elsewhere`` names what stands beside without being compiled to: ``sdk``, ``authorizer``.
    """

    def __init__(
        self,
        engine: Engine,
        intents: Intents,
        oracle: Oracle,
        systems: Sequence[System],
        elsewhere: Iterable[str] = (),
    ) -> None:
        self._engine = engine
        self._intents = intents
        self._oracle = oracle
        self._systems = tuple(systems)
        self._elsewhere = tuple(elsewhere)
        self._known: dict[str, dict[str, _Door]] = {}
        self._accepted = frozenset(Feature(name) for one in systems for name in one.view.accepted)

    def prove(self, space: Iterable[Ask], progress: Callable[[int], None] | None = None) -> Proof:
        """Return what was found; ``progress`` is told how many requests were asked.

        Raises InputError for manifests that a system would reject.
        """
        keeps = [_Kept(system.name) for system in self._systems]
        count = 0
        for ask in space:
            count += 1
            if progress is not None and count % STEP == 0:
                progress(count)
            self._judge(ask, keeps)
        reports = {
            kept.target: kept.report(
                count, [one.name for one in self._systems if one.name != kept.target], self._elsewhere
            )
            for kept in keeps
        }
        return Proof(requests=count, targets=reports)

    def _judge(self, ask: Ask, keeps: Sequence[_Kept]) -> None:
        answer = self._oracle.answer(ask)
        if answer.says is Says.EITHER:
            return
        outcomes = [self._outcome(system, ask, answer) for system in self._systems]
        is_allowed = answer.says is Says.ALLOW
        for system, outcome, kept in zip(self._systems, outcomes, keeps, strict=True):
            if outcome.allowed is is_allowed or (ask.is_bound and not system.isolates):
                continue
            found = Difference(
                target=system.name, ask=ask, policy=answer, outcome=outcome, place=system.place(outcome)
            )
            if is_allowed:
                kept.narrower(replace(found, announced=self._announced(system, ask)))
            else:
                self._wider(system, found, outcomes, kept)

    @staticmethod
    def _outcome(system: System, ask: Ask, answer: Answer) -> Outcome:
        outcome = system.evaluate(ask)
        if (
            outcome.allowed
            and outcome.asks is not None
            and answer.says is Says.DENY
            and not _is_unseen("authorizer", ask)
        ):
            return Outcome(allowed=False, why=f"{outcome.asks} refuses: {answer.why}", by=outcome.by)
        return outcome

    def _wider(self, system: System, found: Difference, outcomes: Sequence[Outcome], kept: _Kept) -> None:
        ask = found.ask
        covered = next(
            (
                other.name
                for other, outcome in zip(self._systems, outcomes, strict=True)
                if other is not system and not outcome.allowed
            ),
            None,
        ) or next((name for name in self._elsewhere if not _is_unseen(name, ask)), None)
        if covered is not None and (self._is_left(system, ask) or not self._answers_for(system, found)):
            return
        feature = self._relaxed(system, ask)
        if feature is None:
            kept.wider(replace(found, covered_by=covered))
        elif covered is None:
            kept.accepted(replace(found, accepted=feature))

    def _is_left(self, system: System, ask: Ask) -> bool:
        """Tell whether compiling said that doors of a service are told apart by the one beside, not here."""
        operations = (one.door.operation for one in self._doors(ask.service).values()) if ask.door else ()
        spans = {one.span for one in operations if one is not None}
        left = f"{system.name}.overlap"
        return any(one.code == left and not one.is_error and one.span in spans for one in system.diagnostics)

    def _answers_for(self, system: System, found: Difference) -> bool:
        """Tell whether a target claims to hold by itself what a request turns on."""
        ask = found.ask
        if ask.is_bound:
            return True
        plain = self._normalised(ask)
        if plain is not None:
            answer = self._oracle.answer(plain)
            is_same = answer.says is Says.DENY
            return is_same and self._answers_for(system, replace(found, ask=plain, policy=answer))
        by_labels = system.view.fidelity(Feature.IDENTITY).fidelity is not Fidelity.EXACT
        if by_labels and (not ask.request.source.namespace or ask.caller.kind is CallerKind.LABELS):
            return False  # outside of the cluster are no labels; with a caller's labels it is that caller, which is asked for
        aspects = {Feature.AMBIGUOUS_PATHS} if found.policy.is_ambiguous else {ask.aspect}
        if not ask.is_egress and ask.request.wire is not Wire.TCP:
            door = self._engine.find(ask.service, ask.request.method, ask.request.path)
            if door is not None and door.name != ask.door:
                return False  # a variation that came to another door; the calls of that door are asked for it
            grant = None if door is None else self._grant(ask)
            if grant is not None and not self._engine_allows(ask):
                aspects = set(_needs(grant))  # the door is the caller's own, so facts made the difference
        return any(
            system.view.fidelity(aspect).fidelity in {Fidelity.EXACT, Fidelity.NARROWER} for aspect in aspects
        )

    def _engine_allows(self, ask: Ask) -> bool:
        if ask.caller.policy_id is None:
            return True
        return self._engine.decide(
            caller=ask.caller.policy_id,
            target=ask.service,
            method=ask.request.method,
            path=ask.request.path,
            context=ask.context,
        ).is_allowed

    def _relaxed(self, system: System, ask: Ask) -> Feature | None:
        """Return the feature that was accepted to be held by nobody, or held otherwise, and alone makes the difference.

        A path with a second reading is none any more where the proxy rewrites it first and forwards what it decided on.
        """
        if ask.caller.kind is CallerKind.PROBE and system.lets_nodes:
            return Feature.PROBES
        if ask.is_egress and system.view.fidelity(Feature.EGRESS).fidelity is Fidelity.NARROWER:
            return None if system.sees_egress else Feature.EGRESS
        plain = self._normalised(ask)
        if plain is not None:
            if self._oracle.answer(plain).says is not Says.DENY:
                return Feature.AMBIGUOUS_PATHS
            ask = plain
        if self._is_accepted_reading(ask):
            return Feature.AMBIGUOUS_PATHS
        candidates = set(self._accepted)
        if system.view.fidelity(Feature.IDENTITY).fidelity is Fidelity.NARROWER:
            candidates.add(Feature.IDENTITY)  # by labels: the warning says who can write them
        if not candidates or self._oracle.answer(ask, frozenset(candidates)).says is Says.DENY:
            return None
        for feature in sorted(candidates):
            if self._oracle.answer(ask, frozenset({feature})).says is not Says.DENY:
                return feature
        return min(candidates)

    def _normalised(self, ask: Ask) -> Ask | None:
        """Return a request as the first proxy of the hop forwards it, None where none rewrites its path or it is refused."""
        if ask.request.wire is Wire.TCP:
            return None
        for system in self._systems:
            path = None if system.normalise is None else system.normalise(ask.request.path)
            if path is not None and path != ask.request.path:
                return replace(ask, request=replace(ask.request, path=path))
        return None

    def _is_accepted_reading(self, ask: Ask) -> bool:
        """Tell whether only the second readings of a path are against it, at a door of the caller's own, and that was accepted."""
        if Feature.AMBIGUOUS_PATHS not in self._accepted or ask.operation is None:
            return False
        if not self._oracle.answer(ask).is_ambiguous:
            return False
        request = replace(
            ask.request, path=plain_path(ask.operation.route), method=ask.operation.route.method
        )
        return self._oracle.answer(replace(ask, request=request)).says is not Says.DENY

    def _announced(self, system: System, ask: Ask) -> tuple[str, ...]:
        """Return the codes of the diagnostics that said that this request would be refused."""
        door = self._reached(ask)
        grant = self._grant(ask)
        if ask.is_dns:
            return self._unreached(system, ask)
        if door is not None and grant is not None:
            said = _codes(system, system.view.missing(door.door, grant))
            if said:
                return said  # the door stays shut, whatever else is about the request
        rules = () if grant is None else grant.rules
        operation = None if door is None else door.door.operation
        span = None if operation is None else operation.span
        found = {
            one.code
            for one in system.diagnostics
            if (span is not None and one.span == span) or not set(rules).isdisjoint(one.rules)
        }
        features = {ask.aspect} if door is None else {ask.aspect, *(door.door.features & {Feature.TOKEN})}
        if self._intents.snapshot.is_watched(ask.caller.name, ask.service):
            features.add(Feature.SHADOW)
        return tuple(sorted({*found, *_codes(system, features)}))

    def _unreached(self, system: System, ask: Ask) -> tuple[str, ...]:
        """Return why a service that may call somebody may call nobody here, () where it may."""
        missing = {Feature.EGRESS} if system.view.holder(Feature.EGRESS) is None else set[Feature]()
        for target in self._intents.targets_of(ask.caller.name):
            if target == ask.caller.name:
                continue
            for one in self._doors(target).values():
                grant = one.grants.get(ask.caller.name)
                lacking = None if grant is None else system.view.missing(one.door, grant)
                if lacking is not None and not lacking:
                    return ()
                missing.update(lacking or ())
        return _codes(system, missing)

    def _doors(self, service: str) -> dict[str, _Door]:
        found = self._known.get(service)
        if found is None:
            doors = self._intents.of(service).doors
            found = self._known[service] = {
                door.name: _Door(door, {grant.caller: grant for grant in door.grants}) for door in doors
            }
        return found

    def _reached(self, ask: Ask) -> _Door | None:
        """Return the door that a request comes to, which a variation may have changed."""
        if ask.is_egress or ask.is_bound:
            return None
        name: str | None = ask.door
        if ask.request.wire is not Wire.TCP:
            door = self._engine.find(ask.service, ask.request.method, ask.request.path)
            name = None if door is None else door.name
        return self._doors(ask.service).get(name or "")

    def _grant(self, ask: Ask) -> Grant | None:
        if ask.caller.kind not in {CallerKind.SERVICE, CallerKind.GATEWAY}:
            return None  # who only poses as a caller has no grant
        door = self._reached(ask)
        return None if door is None else door.grants.get(ask.caller.claims_to_be or "")


class _Door(NamedTuple):
    door: Door
    grants: Mapping[str, Grant]


def _codes(system: System, features: Iterable[Feature]) -> tuple[str, ...]:
    """Return the codes of what compiling said of features."""
    found = set(features)
    words = {feature.value for feature in found}
    if Feature.TOKEN in found:
        words |= _OF_TOKENS
    names = {f"{system.name}.{word}" for word in words}
    return tuple(sorted({one.code for one in system.diagnostics if one.code in names}))


def _needs(grant: Grant) -> frozenset[Feature]:
    """Return what facts decide of a grant."""
    needs = frozenset(feature for one in grant.alternatives for feature in one.needs)
    return needs | {Feature.CONDITIONAL_DENY} if grant.denied_if else needs


def _is_unseen(name: str, ask: Ask) -> bool:
    if ask.request.wire is Wire.TCP and ask.operation is None and Feature.TCP in _UNSEEN.get(name, ()):
        return True  # bytes of a tcp service; where HTTP is spoken, the proxy that asks refuses what is none
    return ask.aspect in _UNSEEN.get(name, ()) or ask.is_egress or ask.is_bound


class _Kept:
    """The differences of one target, alike ones once."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._found: dict[str, dict[object, Difference]] = {"wider": {}, "narrower": {}, "accepted": {}}

    def wider(self, found: Difference) -> None:
        """Keep what is let through against the policy."""
        ask = found.ask
        kind = (ask.service, ask.door, ask.aspect, ask.caller.kind, found.outcome.by, found.covered_by)
        self._keep("wider", found, kind)

    def narrower(self, found: Difference) -> None:
        """Keep what is refused against the policy."""
        ask = found.ask
        self._keep("narrower", found, (ask.service, ask.door, found.announced))

    def accepted(self, found: Difference) -> None:
        """Keep what is let through as the operator accepted."""
        self._keep("accepted", found, (found.ask.service, found.ask.door, found.accepted))

    def _keep(self, kind: str, found: Difference, key: object) -> None:
        kept = self._found[kind].get(key)
        if kept is None:
            self._found[kind][key] = found
        else:
            plainer = min(kept, found, key=_plainness)
            self._found[kind][key] = replace(plainer, count=kept.count + 1)

    def report(self, requests: int, beside: Sequence[str], elsewhere: Sequence[str]) -> TargetReport:
        """Return them, the plainest first."""
        wider, narrower, accepted = (
            tuple(sorted(self._found[kind].values(), key=_plainness))
            for kind in ("wider", "narrower", "accepted")
        )
        return TargetReport(
            target=self.target,
            requests=requests,
            wider=wider,
            narrower=narrower,
            accepted=accepted,
            beside=(*beside, *elsewhere),
        )


def _plainness(found: Difference) -> tuple[bool, int, int, str, str, str]:
    ask = found.ask
    return (
        found.covered_by is not None,
        ask.rank,
        len(ask.request.path),
        ask.service,
        ask.door,
        ask.caller.name,
    )
