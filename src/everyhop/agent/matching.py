# SPDX-License-Identifier: Apache-2.0
"""Which services a process is an instance of, and why it is none.

A service's ``workload`` holds alternatives; within one, every selector must hold.  A process may be entitled
to several services: the alternative with the most and strongest selectors comes first, because the first
SVID is the workload's default identity (SPIFFE_Workload_API.md section 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from everyhop.policy.model import Selector, Service, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.agent.model import ProcessFacts

# How much a selector says about a process; only ever used to order what matched anyway.
_STRENGTH: Final = {"sha256": 6, "path": 5, "run": 4, "uid": 3, "user": 3, "gid": 2, "group": 2}


def unix(kind: str, value: object) -> Selector:
    """Return a selector such as ``unix:uid:1000``."""
    return Selector(type="unix", value=f"{kind}:{value}")


def selectors_of(facts: ProcessFacts, launched: Iterable[str] = ()) -> frozenset[Selector]:
    """Return every selector that holds for a process; ``launched`` names the services it was launched as."""
    found = {unix("uid", facts.uid), unix("gid", facts.gid)}
    found.update(unix("gid", gid) for gid in facts.groups)
    found.update(unix("group", name) for name in facts.group_names)
    for kind, value in (
        ("user", facts.user),
        ("group", facts.group),
        ("path", facts.path),
        ("sha256", facts.sha256),
    ):
        if value is not None:
            found.add(unix(kind, value))
    found.update(Selector(type="run", value=service) for service in launched)
    return frozenset(found)


def needs_of(snapshot: Snapshot) -> tuple[bool, bool]:
    """Return whether any selector of the policy asks for the executable's path, and for its digest."""
    kinds = {_kind(s) for service in snapshot.services.values() for alt in service.workload for s in alt}
    return "path" in kinds, "sha256" in kinds


def entitled(snapshot: Snapshot, selectors: frozenset[Selector]) -> tuple[Service, ...]:
    """Return the services whose workload matches, most specific first, then by name."""
    ranked = []
    for service in snapshot.services.values():
        # An empty alternative would hold for everybody; the parser refuses it, and so do we.
        held = [alternative for alternative in service.workload if alternative and alternative <= selectors]
        if held:
            ranked.append((max(map(_specificity, held)), service))
    ranked.sort(key=lambda entry: (-entry[0][0], -entry[0][1], entry[1].name))
    return tuple(service for _, service in ranked)


def _kind(selector: Selector) -> str:
    """Return ``user`` of ``unix:user:x``, ``run`` of ``run:x``."""
    return selector.value.partition(":")[0] if selector.type == "unix" else selector.type


def _specificity(alternative: frozenset[Selector]) -> tuple[int, int]:
    return len(alternative), sum(_STRENGTH.get(_kind(selector), 1) for selector in alternative)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One selector that does not hold: what the process has of that kind, or why that is not known."""

    wanted: Selector
    seen: tuple[Selector, ...]
    unknown: str | None

    def render(self) -> str:
        """Return one clause for people."""
        if self.unknown:
            return f"{self.wanted} (not known: {self.unknown})"
        seen = ", ".join(map(str, self.seen)) or "nothing of that kind"
        return f"{self.wanted} (the process has {seen})"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoIdentity:
    """Why a process has no identity: what it has, the nearest service and what differs there."""

    selectors: tuple[Selector, ...]
    nearest: str | None
    differences: tuple[Difference, ...]
    quarantined: str | None = None

    def render(self) -> str:
        """Return the explanation as one line for logs and people; selectors are no secrets."""
        seen = " ".join(map(str, self.selectors))
        if self.quarantined is not None:
            return f"the service {self.quarantined!r} is quarantined (everyhop blocks); selectors: {seen}"
        if self.nearest is None:
            return f"no service of the policy has a workload; selectors: {seen}"
        missing = "; ".join(difference.render() for difference in self.differences)
        return f"nearest service {self.nearest!r} also wants {missing}; selectors: {seen}"

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation for JSON."""
        return {
            "selectors": [str(selector) for selector in self.selectors],
            "nearest": self.nearest,
            "quarantined": self.quarantined,
            "differences": [
                {"wanted": str(d.wanted), "seen": [str(s) for s in d.seen], "unknown": d.unknown}
                for d in self.differences
            ],
        }


def quarantined(selectors: frozenset[Selector], service: str) -> NoIdentity:
    """Explain a process of a service to which nothing is given for now."""
    return NoIdentity(
        selectors=tuple(sorted(selectors)), nearest=service, differences=(), quarantined=service
    )


def explain(
    snapshot: Snapshot, selectors: frozenset[Selector], unknown: Mapping[str, str] | None = None
) -> NoIdentity:
    """Explain a process that matches nothing: fewest missing selectors first, then most held, then name."""
    best: tuple[tuple[int, int, str], str, frozenset[Selector]] | None = None
    for service in snapshot.services.values():
        for alternative in service.workload:
            missing = alternative - selectors
            rank = (len(missing), -len(alternative & selectors), service.name)
            if best is None or rank < best[0]:
                best = (rank, service.name, missing)
    reasons = unknown or {}
    return NoIdentity(
        selectors=tuple(sorted(selectors)),
        nearest=best[1] if best else None,
        differences=tuple(
            Difference(
                wanted=wanted,
                seen=tuple(sorted(s for s in selectors if _kind(s) == _kind(wanted))),
                unknown=reasons.get(_kind(wanted)),
            )
            for wanted in sorted(best[2] if best else ())
        ),
    )
