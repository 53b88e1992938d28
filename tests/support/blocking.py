# SPDX-License-Identifier: Apache-2.0
"""Blocks for sidecars that a test drives: laid over what they are given, as the agent does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from everyhop.anomaly.model import Block, BlockMode, Blocks, Subject
from everyhop.control.policy_view import PolicyView
from everyhop.control.sidecar_blocks import SidecarBlocks


class Now:
    """The clock of this machine."""

    def now(self):
        return datetime.now(UTC)


def block_of(text, *, seconds=3600.0, mode=BlockMode.BLOCK):
    """Return a block from now on; ``seconds`` of None has no end."""
    now = datetime.now(UTC)
    until = None if seconds is None else now + timedelta(seconds=seconds)
    return Block(subject=Subject.parse(text), mode=mode, since=now, until=until, reason="test", by="test")


class MeshBlocks:
    """The blocks of a mesh (:mod:`tests.support.envoy_pair`)."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.sequence = 0
        self._overlay = SidecarBlocks(Now())
        view = PolicyView(mesh.snapshot)
        for running in mesh.sidecars.values():
            sidecar = running.sidecar
            self._overlay.base(
                sidecar.instance,
                mesh.secrets.configs.published(sidecar.instance),
                directory=sidecar.directory,
                own=mesh.spiffe_id(sidecar.service),
                streams=view.streams(sidecar.service),
            )

    def put(self, *blocks):
        """Have exactly these in force; return when every sidecar that is up has confirmed it."""
        self.sequence += 1
        self._overlay.take(Blocks.build(blocks, sequence=self.sequence))
        configs = self.mesh.secrets.configs
        for instance in self._overlay.known():
            self.mesh.call(configs.publish, instance, self._overlay.overlaid(instance))

    def confirmed(self, instance):
        """Tell whether a sidecar has confirmed the blocks that were put last."""
        return self.mesh.secrets.configs.blocks(instance) == self.sequence
