# SPDX-License-Identifier: Apache-2.0
"""The list of what became of each part of a source, and what every source leaves open about its workloads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.importing.model import Fate, Part

if TYPE_CHECKING:
    from everyhop.core.problems import Span
    from everyhop.importing.workloads import Group, Groups
    from everyhop.manifests import Manifest


class Notes:
    """The parts of the source, in order, each once."""

    def __init__(self) -> None:
        self.parts: Final[list[Part]] = []
        self._seen: set[Part] = set()

    def put(self, part: Part) -> None:
        """Take a part down."""
        if part not in self._seen:
            self._seen.add(part)
            self.parts.append(part)

    def add(
        self, fate: Fate, code: str, one: Manifest, message: str, where: str = "", written: str = ""
    ) -> None:
        """Take down what became of an object, or of the part of it that ``where`` names."""
        self.put(
            Part(
                fate=fate,
                code=code,
                source=where or str(one),
                message=message,
                span=one.span,
                written=written,
            )
        )


def settle_accounts(groups: Groups, notes: Notes, origin: str, span: Span) -> None:
    """Give each named group an account, assumed to be called as it is where the source tells none, and say so.

    ``span`` is the place to name where no object of the group is known.
    """
    for group in groups.all:
        if group.account is None:
            group.account = group.name
            notes.put(_assumed(group, f"{origin}.account", span))
    for _, pod in groups.merged:
        message = f"it shares the account {pod.account!r} with others from which no labels tell it apart"
        notes.put(
            Part(
                fate=Fate.LEFT_OUT,
                code=f"{origin}.shared-account",
                source=f"workload {pod.namespace}/{pod.name}",
                message=message,
                span=pod.span,
            )
        )


def _assumed(group: Group, code: str, span: Span) -> Part:
    labels = ", ".join(f"{key}={value}" for key, value in sorted(group.labels.items()))
    return Part(
        fate=Fate.ASSUMED,
        code=code,
        source=f"pods {labels} in {group.namespace}",
        message="their service account is not known",
        written=f"{group.account!r}: mend it in the chapter targets",
        span=span,
    )
