# SPDX-License-Identifier: Apache-2.0
"""Templates as sets of paths: held against every path of up to three segments over a small alphabet."""

import itertools
import random
import re

import pytest

from everyhop.core.errors import InputError
from everyhop.importing.templates import (
    EVERYTHING,
    ONE,
    REST,
    closed,
    contains,
    example,
    may_be,
    may_end,
    may_start,
    meet,
    read_template,
    write_template,
)

SEGMENTS = ("", "a", "ab", "b")
PATHS = ["/" + "/".join(parts) for n in (1, 2, 3) for parts in itertools.product(SEGMENTS, repeat=n)]


def paths_of(template):
    """Return the paths of a template by a regular expression, written from the language's words."""
    parts = {ONE: "[^/]+", REST: ".*"}
    pattern = re.compile("/" + "/".join(parts.get(part, re.escape(part)) for part in template))
    return {path for path in PATHS if pattern.fullmatch(path)}


def templates():
    """Return every template of up to three segments over the alphabet."""
    for count in (1, 2, 3):
        for head in itertools.product(("a", "ab", ONE), repeat=count - 1):
            for last in ("", "a", "b", ONE, REST):
                yield (*head, last)


ALL = list(templates())


def test_inclusion_and_intersection_are_those_of_the_sets():
    # A rest takes in longer paths than are listed, so equality of listed paths is asked of inclusion only where it can tell.
    sets = {template: paths_of(template) for template in ALL}
    for left, right in itertools.product(ALL, repeat=2):
        both = meet(left, right)
        assert (set() if both is None else paths_of(both)) == sets[left] & sets[right], (left, right)
        if contains(left, right):
            assert sets[right] <= sets[left], (left, right)
        elif sets[right] <= sets[left]:
            assert len(right) > 3 or REST in right or not sets[right], (left, right)


def test_in_a_closed_set_what_matches_a_path_has_a_least_one():
    chance = random.Random(7)
    for _ in range(60):
        found = closed(chance.sample(ALL, 5))
        for path in PATHS:
            matching = [template for template in found if path in paths_of(template)]
            if matching:
                assert any(all(contains(other, one) for other in matching) for one in matching)


def test_too_many_overlaps_are_refused():
    crossing = [tuple("a" if at == index else ONE for at in range(12)) for index in range(12)]
    with pytest.raises(InputError, match="overlap in more than 400 ways"):
        closed(crossing)


@pytest.mark.parametrize("template", ALL, ids=map(write_template, ALL))
def test_a_template_is_written_and_read_back_and_has_its_example(template):
    assert read_template(write_template(template)) == template
    assert may_be(template, example(template))


def test_what_may_match_is_never_wrongly_no():
    texts = ["", "/", "/a", "/ab", "/a/", "/a/b", "/b/a/", "b", "a/b", "/a/ab/b"]
    for template in ALL:
        paths = paths_of(template)
        for text in texts:
            if any(path.startswith(text) for path in paths):
                assert may_start(template, text), (template, text)
            if any(path.endswith(text) for path in paths):
                assert may_end(template, text), (template, text)
            if text in paths:
                assert may_be(template, text), (template, text)


def test_what_cannot_match_is_told_where_it_matters():
    assert not may_start(("a", ONE), "/b")
    assert not may_start(("a",), "/a/b")
    assert not may_start(("a",), "x")
    assert not may_end(("a", "b"), "/c")
    assert not may_end(("b",), "/x/b")
    assert not may_be((ONE,), "/")
    assert not may_be(EVERYTHING, "a")
