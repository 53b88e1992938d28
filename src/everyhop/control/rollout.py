# SPDX-License-Identifier: Apache-2.0
"""In which order the sidecars of a node take a new policy over, so that no permitted call fails on the way.

A callee must not ask for a token before its callers attach one, and callers must not stop before it no longer asks.
Most policies need no order.  A sidecar that does not confirm in time holds nobody up for long: a policy is more urgent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.policy.model import TokenMode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from everyhop.control.policy_view import PolicyView

WAVE_SECONDS: Final = 3.0
_RANK: Final = {TokenMode.NONE: 0, TokenMode.SERVICE: 1, TokenMode.OPERATION: 2}

_Needs = dict[tuple[str, str], tuple[int, bool]]


class Rollout:
    """The waves of one policy that are still to come; the first of them is under way."""

    def __init__(self, waves: list[frozenset[str]], now: float) -> None:
        self._waves = waves
        self._deadline = now + WAVE_SECONDS

    @property
    def held(self) -> frozenset[str]:
        """Return the services whose sidecars keep what they have for now."""
        return frozenset().union(*self._waves[1:])

    def advance(self, is_done: Callable[[str], bool], now: float) -> bool:
        """Begin the next wave once every service of this one is done, or its time is over; tell whether it began."""
        if not self.held or not (now >= self._deadline or all(map(is_done, self._waves[0]))):
            return False
        del self._waves[0]
        self._deadline = now + WAVE_SECONDS
        return True

    def seconds_left(self, now: float) -> float | None:
        """Return how long this wave may still take; None when none waits for it."""
        return max(0.0, self._deadline - now) if self.held else None


def waves_of(before: PolicyView, after: PolicyView, services: Collection[str]) -> list[frozenset[str]]:
    """Return the services that have sidecars here in the order in which they take ``after`` over: one wave or more.

    Stricter demands go to callers first (a narrower or fresh token satisfies the wider demand of before), weaker
    ones to callees first.  Services that would have to wait for each other share a wave.
    """
    after_which: dict[str, set[str]] = {service: set() for service in services}
    if _token_doors(before) or _token_doors(after):
        for service in services:
            old, new = _needs(before, service), _needs(after, service)
            grown = {door[0] for door, need in new.items() if need > old.get(door, (0, False))}
            shrunk = {door[0] for door, need in old.items() if need > new.get(door, (0, False))} - grown
            for target in (grown & after_which.keys()) - {service}:
                after_which[target].add(service)
            after_which[service] |= (shrunk & after_which.keys()) - {service}
    waves: list[frozenset[str]] = []
    while after_which:
        ready = frozenset(s for s, others in after_which.items() if not others & after_which.keys())
        waves.append(ready or frozenset(after_which))
        after_which = {s: others for s, others in after_which.items() if s not in waves[-1]}
    return waves


def _token_doors(view: PolicyView) -> bool:
    return any(o.token is not TokenMode.NONE for s in view.snapshot.services.values() for o in s.operations)


def _needs(view: PolicyView, service: str) -> _Needs:
    """Return what a service's calls carry, by target and operation."""
    needs: _Needs = {}
    for target in view.reach(service):
        granted = view.grants.operations(service, target) or frozenset()
        for operation in view.snapshot.services[target].operations:
            if operation.token is not TokenMode.NONE and operation.name in granted:
                needs[target, operation.name] = (_RANK[operation.token], operation.once)
    return needs
