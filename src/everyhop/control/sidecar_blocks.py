# SPDX-License-Identifier: Apache-2.0
"""Blocks laid over what a sidecar is given: no policy is rendered for them, and none has to be waited for.

The policy's own filters, routes and listeners stay as they are.  What changes is what the filters in front of them refuse;
of a newly blocked caller, the name of the chain that holds its open streams; and a quarantined service's sidecar is left
without listeners.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from everyhop.anomaly.model import BlockMode, Blocks, SubjectKind
from everyhop.dataplane._resources import encode
from everyhop.dataplane.blocking import blocking, renamed_chains
from everyhop.dataplane.configuration import CLUSTER, ENDPOINTS, FILTER, LISTENER, ROUTES, resource_of
from everyhop.dataplane.enforcement import filter_file
from everyhop.dataplane.render import LISTENERS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime
    from pathlib import Path

    from everyhop.core.clock import Clock
    from everyhop.dataplane._resources import Json
    from everyhop.dataplane.configuration import Configuration, Resource

MARK: Final = "mark"
"""File in a sidecar's directory that holds how its chains are named, so that a restart of the agent cuts nobody off."""


@dataclass(slots=True)
class _Sidecar:
    """What is known of one sidecar: what it is given without blocks, and whose streams it may hold."""

    base: Configuration
    directory: Path
    own: str
    streams: frozenset[str]
    cut: frozenset[str]
    mark: str


class _Moment:
    """Who is blocked at one moment, with what the filters refuse then: made once for all sidecars of a policy."""

    def __init__(self, blocks: Blocks, now: datetime) -> None:
        self.blocks = blocks
        self.now = now
        in_force = [block for block in blocks.by_subject.values() if block.holds(now)]
        identities = {b.subject.value: b for b in in_force if b.subject.kind is SubjectKind.IDENTITY}
        self.callers = frozenset(identities)
        self.quarantined = frozenset(v for v, b in identities.items() if b.mode is BlockMode.QUARANTINE)
        self._made: dict[tuple[str, str], dict[str, tuple[Json, Resource]]] = {}

    def filters(self, label: str, own: str) -> Mapping[str, tuple[Json, Resource]]:
        """Return the filters in front by name, as a file's content and encoded."""
        key = label, own if own in self.callers else ""
        if key not in self._made:
            contents = {
                name: filter_file(name, content, "")
                for name, content in blocking(label, self.blocks, self.now, own=own).items()
            }
            self._made[key] = {
                name: (content, resource_of(content["resources"][0])) for name, content in contents.items()
            }
        return self._made[key]


class SidecarBlocks:
    """Lays the blocks of the moment over configurations.  Used from one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._moment = _Moment(Blocks(), clock.now())
        self._sidecars: dict[str, _Sidecar] = {}

    def take(self, blocks: Blocks) -> None:
        """Enforce these from now on, as far as their time is not over."""
        self._moment = _Moment(blocks, self._clock.now())

    def base(
        self,
        instance: str,
        configuration: Configuration,
        *,
        directory: Path,
        own: str,
        streams: frozenset[str],
    ) -> None:
        """Note what a sidecar is given by its policy.

        ``own`` is the SPIFFE ID of its service ("" where the policy declares none), ``streams`` are the callers that may
        keep connections or streams open there.
        """
        held = self._sidecars.get(instance)
        mark = held.mark if held is not None else _read_mark(directory)
        # What was blocked before the agent came to know of this sidecar was cut then, or it has no streams yet.
        cut = held.cut if held is not None else self._moment.callers
        self._sidecars[instance] = _Sidecar(configuration, directory, own, streams, cut, mark)

    def keep_only(self, instances: Collection[str]) -> None:
        """Forget the sidecars that are not among ``instances``."""
        self._sidecars = {k: v for k, v in self._sidecars.items() if k in instances}

    def known(self) -> tuple[str, ...]:
        """Return the sidecars that are known."""
        return tuple(self._sidecars)

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
        filters |= {name: resource for name, (_, resource) in made.items() if name in filters}
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
        return {f"ecds/{n}.json": encode(content) for n, (content, _) in made.items() if n in base.of(FILTER)}

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
