# SPDX-License-Identifier: Apache-2.0
"""Expressions for the paths of one route, against the trie and the reading of paths that the engine uses."""

import re

from hypothesis import given, strategies as st
from tests.strategies import policies, requests_for

from everyhop.authz.paths import clean_pattern
from everyhop.authz.routing import RouteTrie
from everyhop.policy.routes import guarded_characters, overlaps
from everyhop.targets.regions import Clean, more_specific, region

LONGEST = 1024


@st.composite
def worlds(draw):
    snapshot = draw(policies())
    return snapshot, draw(st.lists(requests_for(snapshot), min_size=1, max_size=20))


def own_regions(operations, longest, *, encoded=True):
    clean = Clean.of(guarded_characters(tuple(one.route for one in operations)), encoded=encoded)
    for operation in operations:
        others = [one.route for one in more_specific(operation, operations)]
        others = [one for one in others if overlaps(one, operation.route)]
        found = region(operation.route, others, clean, longest)
        yield operation, found


@given(worlds(), st.sampled_from((LONGEST, 10_000_000)))
def test_a_path_matches_the_expressions_of_the_one_operation_that_it_belongs_to(world, longest):
    snapshot, requests = world
    for service in snapshot.services.values():
        operations = (*service.operations, *service.probes)
        trie = RouteTrie()
        for operation in operations:
            trie.add(operation.route, operation)
        is_clean = clean_pattern(guarded_characters(tuple(one.route for one in operations))).match
        for operation, found in own_regions(operations, longest):
            if found is None:
                assert longest == LONGEST
                continue
            assert all(len(text) <= longest for text in found)
            compiled = [re.compile(text) for text in found]
            for request in requests:
                path = request.path.partition("?")[0]
                expected = None
                if is_clean(path):
                    expected = trie.find(operation.route.method, path[1:].split("/"))
                matched = any(one.fullmatch(path) for one in compiled)
                assert matched == (expected is operation), (str(operation.route), path, found)


@given(worlds())
def test_without_encoded_characters_it_is_narrower_by_just_these(world):
    snapshot, requests = world
    for service in snapshot.services.values():
        operations = (*service.operations, *service.probes)
        exact = {id(one): found for one, found in own_regions(operations, 10_000_000)}
        for operation, found in own_regions(operations, 10_000_000, encoded=False):
            for request in requests:
                path = request.path.partition("?")[0]
                wide = any(re.fullmatch(text, path) for text in exact[id(operation)])
                narrow = any(re.fullmatch(text, path) for text in found)
                assert narrow == (wide and "%" not in path)
