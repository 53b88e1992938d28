# SPDX-License-Identifier: Apache-2.0
"""Reading a snapshot gives each node the place of the nearest pointer above it, however strange the keys are."""

from __future__ import annotations

from hypothesis import given, strategies as st

from everyhop.policy._nodes import Items, Table, Text
from everyhop.policy.codec import _to_document

UNKNOWN = ("snapshot", 1, 1)
KEYS = st.text(alphabet="ab.[]0", max_size=3)
VALUES = st.recursive(
    st.one_of(KEYS, st.booleans(), st.integers()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=12,
)


def pointers_of(value, pointer=""):
    """Every pointer of a document, by the plainest walk."""
    yield pointer
    if isinstance(value, dict):
        for key, item in value.items():
            yield from pointers_of(item, f"{pointer}{'.' if pointer else ''}{key}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from pointers_of(item, f"{pointer}[{index}]")


def plainly(value, pointer, spans, outer):
    """The same reading without any short cut."""
    place = spans.get(pointer, outer)
    if isinstance(value, dict):
        entries = []
        for key, item in value.items():
            node = plainly(item, f"{pointer}{'.' if pointer else ''}{key}", spans, place)
            entries.append((Text(key, node.file, node.line, node.column), node))
        return Table(tuple(entries), *place)
    if isinstance(value, list):
        items = [plainly(item, f"{pointer}[{i}]", spans, place) for i, item in enumerate(value)]
        return Items(tuple(items), *place)
    if isinstance(value, bool):
        value = "true" if value else "false"
    return Text(str(value), *place)


@given(VALUES, st.data())
def test_every_node_has_the_place_of_the_nearest_pointer_above(value, data):
    chosen = data.draw(st.lists(st.sampled_from(sorted(set(pointers_of(value)))), unique=True))
    strange = data.draw(st.lists(KEYS, max_size=2))
    spans = {pointer: ("policy.yaml", number + 2, 1) for number, pointer in enumerate([*chosen, *strange])}
    assert _to_document(value, spans) == plainly(value, "", spans, UNKNOWN)
