# SPDX-License-Identifier: Apache-2.0
"""The matrix as Markdown, for the documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.targets.matrix import MATRIX, cell
from everyhop.targets.model import Feature, Fidelity

if TYPE_CHECKING:
    from collections.abc import Iterator


def matrix_page() -> str:
    """Return the table of features by target, and below it for each target what every cell rests on."""
    return "\n".join([*_table(), "", *_notes()])


def _table() -> Iterator[str]:
    targets = list(MATRIX)
    yield "| feature | " + " | ".join(f"`{target}`" for target in targets) + " |"
    yield "| --- |" + " --- |" * len(targets)
    for feature in Feature:
        cells = " | ".join(cell(target, feature).fidelity.value for target in targets)
        yield f"| {feature.value} | {cells} |"


def _notes() -> Iterator[str]:
    for target in MATRIX:
        yield f"**{target}**"
        yield ""
        for feature in Feature:
            found = cell(target, feature)
            if found.fidelity is Fidelity.REFUSED and feature not in MATRIX[target]:
                continue
            needs = "" if found.needs is None else f"; refused without the option `{found.needs}`"
            yield f"- {feature.value}: {found.fidelity.value}, {found.note}{needs}"
        yield ""
