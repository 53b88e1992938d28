# SPDX-License-Identifier: Apache-2.0
"""Blocks laid over what a sidecar is given: no policy is rendered for them, and none has to be waited for.

The policy's own filters, routes and listeners stay as they are.  What changes is what the filters in front of them refuse;
of a newly blocked caller, the name of the chain that holds its open streams; and a quarantined service's sidecar is left
without listeners.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from everyhop.anomaly.model import BlockMode, Blocks, SubjectKind
from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import encode
from everyhop.dataplane.blocking import (
    refused_addresses,
    refused_callers,
    refused_workload,
    renamed_chains,
)
from everyhop.dataplane.configuration import CLUSTER, ENDPOINTS, FILTER, LISTENER, ROUTES, resource_of
from everyhop.dataplane.enforcement import filter_file
from everyhop.dataplane.render import LISTENERS
from everyhop.dataplane.token_memory import memory_filter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime
    from pathlib import Path

    from everyhop.core.clock import Clock
    from everyhop.dataplane._resources import Json
    from everyhop.dataplane.configuration import Configuration, Resource

MARK: Final = "mark"
"""File in a sidecar's directory that holds how its chains are named, so that a restart of the agent cuts nobody off."""


class _Made(NamedTuple):
    """A filter as the content of a file, and as Envoy is given it."""

    content: Json
    resource: Resource


@dataclass(slots=True)
class _Sidecar:
    """What is known of one sidecar: what it is given without blocks, and whose streams it may hold."""

    base: Configuration
    directory: Path
    own: str
    streams: frozenset[str]
    cut: frozenset[str]
    mark: str
    remembers: str | None
    shown: _Moment | None = None


class _Moment:
    """Who is blocked at one moment, and what the filters in front refuse then.

    A filter is made once for all sidecars of a policy, and not again while those that it is about are the same.
    """

    def __init__(
        self, blocks: Blocks, now: datetime, before: _Moment | None = None, *, epoch: str = ""
    ) -> None:
        self.blocks = blocks
        self.epoch = epoch
        in_force = [block for block in blocks.by_subject.values() if block.holds(now)]
        self._identities = {b.subject.value: b for b in in_force if b.subject.kind is SubjectKind.IDENTITY}
        self._addresses = [block for block in in_force if block.subject.kind is SubjectKind.ADDRESS]
        self._of_callers = frozenset((v, b.until) for v, b in self._identities.items())
        self._of_addresses = frozenset((b.subject.value, b.until) for b in self._addresses)
        self.callers = frozenset(self._identities)
        self.quarantined = frozenset(v for v, b in self._identities.items() if b.mode is BlockMode.QUARANTINE)
        self.made: dict[tuple[object, ...], _Made] = {} if before is None else before.made
        self._used: set[tuple[object, ...]] = set()

    def filters(self, label: str, own: str) -> dict[str, _Made]:
        """Return the filters in front by name."""
        mine = self._identities.get(own)
        return {
            names.BLOCKED: self._filter(
                names.BLOCKED,
                (label, self._of_callers),
                lambda: refused_callers(label, self._identities.values()),
            ),
            names.EDGE_BLOCKED: self._filter(
                names.EDGE_BLOCKED,
                (label, self._of_addresses),
                lambda: refused_addresses(label, self._addresses),
            ),
            names.EGRESS_BLOCKED: self._filter(
                names.EGRESS_BLOCKED,
                (label, None if mine is None else mine.until, mine is None),
                lambda: refused_workload(label, mine),
            ),
        }

    def memory(self, label: str, epoch: str) -> _Made:
        """Return the program that remembers what was verified since the last change of tokens and of blocked users."""
        return self._filter(
            names.MEMORY,
            (label, epoch, self.epoch),
            lambda: memory_filter(label, f"{epoch}.{self.epoch}" if self.epoch else epoch),
        )

    def forget_unused(self) -> None:
        """Drop what no sidecar is given any more."""
        for key in self.made.keys() - self._used:
            del self.made[key]

    def _filter(self, name: str, about: tuple[object, ...], make: Callable[[], Json]) -> _Made:
        key = (name, *about)
        self._used.add(key)
        if key not in self.made:
            content = filter_file(name, make(), "")
            self.made[key] = _Made(content, resource_of(content["resources"][0]))
        return self.made[key]


class SidecarBlocks:
    """Lays the blocks of the moment over configurations.  Used from one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._moment = _Moment(Blocks(), clock.now())
        self._sidecars: dict[str, _Sidecar] = {}

    def take(self, blocks: Blocks, *, epoch: str = "") -> None:
        """Enforce these from now on, as far as their time is not over.

        ``epoch`` is a text that differs whenever other users or keys are blocked.
        """
        self._moment = _Moment(blocks, self._clock.now(), self._moment, epoch=epoch)

    def base(
        self,
        instance: str,
        configuration: Configuration,
        *,
        directory: Path,
        own: str,
        streams: frozenset[str],
        epoch: str = "",
    ) -> None:
        """Note what a sidecar is given by its policy, and under which ``epoch`` of tokens it remembers, if it does.

        ``own`` is the SPIFFE ID of its service ("" where the policy declares none), ``streams`` are the callers that may
        keep connections or streams open there.
        """
        held = self._sidecars.get(instance)
        mark = held.mark if held is not None else _read_mark(directory)
        # What was blocked before the agent came to know of this sidecar was cut then, or it has no streams yet.
        cut = held.cut if held is not None else self._moment.callers
        memory = configuration.of(FILTER).get(names.MEMORY)
        program = filter_file(names.MEMORY, memory_filter(configuration.label, epoch), "")["resources"][0]
        remembers = memory is not None and memory.content == resource_of(program).content
        self._sidecars[instance] = _Sidecar(
            configuration, directory, own, streams, cut, mark, epoch if remembers else None
        )

    def keep_only(self, instances: Collection[str]) -> None:
        """Forget the sidecars that are not among ``instances``."""
        self._sidecars = {k: v for k, v in self._sidecars.items() if k in instances}

    def unshown(self) -> list[str]:
        """Return the sidecars whose files do not show the blocks of the moment yet; they count as shown from now on."""
        found = [name for name, sidecar in self._sidecars.items() if sidecar.shown is not self._moment]
        for name in found:
            self._sidecars[name].shown = self._moment
        return found

    def known(self) -> tuple[str, ...]:
        """Return the sidecars that are known."""
        return tuple(self._sidecars)

    def forget_unused(self) -> None:
        """Drop the filters that no sidecar is given any more; call it when all of them were overlaid."""
        self._moment.forget_unused()

    def directory(self, instance: str) -> Path:
        """Return where the files of a sidecar lie."""
        return self._sidecars[instance].directory

    def without(self, instance: str) -> Configuration | None:
        """Return what a sidecar is given without blocks; None for one that is not known."""
        held = self._sidecars.get(instance)
        return None if held is None else held.base

    def overlaid(self, instance: str) -> Configuration:
        """Return what a sidecar is to be given now.  Raises OSError when its mark cannot be kept."""
        sidecar, moment = self._sidecars[instance], self._moment
        self._cut_new(sidecar, moment.callers)
        base = sidecar.base
        filters = dict(base.of(FILTER))
        made = moment.filters(base.label, sidecar.own)
        filters |= {name: one.resource for name, one in made.items() if name in filters}
        if sidecar.remembers is not None and moment.epoch:
            filters[names.MEMORY] = moment.memory(base.label, sidecar.remembers).resource
        resources = {**base.resources, FILTER: filters}
        if sidecar.own in moment.quarantined:
            resources |= {kind: {} for kind in (LISTENER, CLUSTER, ENDPOINTS, ROUTES)}
        elif sidecar.mark:
            resources[LISTENER] = self._renamed(sidecar)
        return replace(base, resources=resources, blocks=moment.blocks.sequence)

    def files(self, instance: str) -> dict[str, bytes]:
        """Return the files that show a person what the filters in front refuse."""
        base, own = self._sidecars[instance].base, self._sidecars[instance].own
        made = self._moment.filters(base.label, own)
        return {f"ecds/{n}.json": encode(one.content) for n, one in made.items() if n in base.of(FILTER)}

    def _cut_new(self, sidecar: _Sidecar, callers: frozenset[str]) -> None:
        """Name the chains anew when somebody is blocked who may have a stream open; whoever is not any more is no reason."""
        if (callers - sidecar.cut) & sidecar.streams:
            sidecar.mark = str(self._moment.blocks.sequence)
            (sidecar.directory / MARK).write_text(sidecar.mark, "ascii")
        sidecar.cut = callers

    def _renamed(self, sidecar: _Sidecar) -> dict[str, Resource]:
        document: dict[str, Any] = msgspec.json.decode((sidecar.directory / LISTENERS).read_bytes())
        listeners = renamed_chains(document["resources"], sidecar.mark)
        return {listener["name"]: resource_of(listener) for listener in listeners}


def _read_mark(directory: Path) -> str:
    try:
        text = (directory / MARK).read_text("ascii")
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
    return text if text.isdecimal() else ""
