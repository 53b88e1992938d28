# SPDX-License-Identifier: Apache-2.0
"""What our evaluators of Envoy say, asked of a real Envoy: paths byte by byte, and RBAC filters made at random."""

import json
import random

import pytest
from tests.support.rbac_envoy import RbacEnvoy, random_filter, random_request, random_tree

from everyhop.evaluators.envoy_paths import EscapedSlashes, canonical
from everyhop.evaluators.envoy_rbac import read_filter

FILTERS = 60
REQUESTS = 40
OPTIONS = {
    "none": (False, False, EscapedSlashes.KEEP),
    "base": (True, False, EscapedSlashes.KEEP),
    "merged": (True, True, EscapedSlashes.KEEP),
    "refused": (True, True, EscapedSlashes.REJECT),
    "decoded": (True, True, EscapedSlashes.UNESCAPE),
    "only-merged": (False, True, EscapedSlashes.UNESCAPE),
}
PIECES = ("/", "//", ".", "..", "%2e", "%2E.", "%2f", "%5C", "\\", "a", "%41", "%00", "%c3%a9", "%", "%zz", ";", "?", "|", "^", "{", "#", "=", "*")  # fmt: skip


@pytest.fixture(scope="module")
def paths():
    rng = random.Random("paths")
    made = {"/" + "".join(rng.choices(PIECES, k=rng.randint(0, 7))) for _ in range(220)}
    singles = {f"/a{chr(code)}b" for code in range(33, 127)} | {f"/a%{code:02X}b" for code in range(1, 256)}
    return sorted(made | singles | {"/%%41a", "/%%34%31", "/%%34x", "/%%%34%31", "///?a", "//", "/%4%31"})


@pytest.fixture(scope="module")
def envoy(tmp_path_factory):
    rng = random.Random("filters")
    filters = [random_tree(rng) if at % 4 == 3 else random_filter(rng) for at in range(FILTERS)]
    members = {
        name: {
            "normalize_path": normalizes,
            "merge_slashes": merges,
            "path_with_escaped_slashes_action": escaped.value,
        }
        for name, (normalizes, merges, escaped) in OPTIONS.items()
    }
    with RbacEnvoy(tmp_path_factory.mktemp("envoy"), [[one] for one in filters], members) as running:
        running.filters = filters
        yield running


@pytest.mark.parametrize("name", OPTIONS)
def test_envoy_sees_the_paths_that_we_say(envoy, paths, name):
    normalizes, merges, escaped = OPTIONS[name]
    for path in paths:
        ours = canonical(path, normalizes=normalizes, merges=merges, escaped=escaped)
        assert envoy.seen(name, path) == ours, path


@pytest.mark.slow
def test_filters_made_at_random_decide_as_we_say(envoy):
    rng = random.Random("requests")
    answers = {200: 0, 403: 0}
    for chain, written in enumerate(envoy.filters):
        read = read_filter(written)
        for _ in range(REQUESTS):
            peer, method, path, headers = random_request(rng)
            seen = canonical(path, normalizes=True, merges=False, escaped=EscapedSlashes.KEEP)
            ours = read.allows(envoy.attempt(chain, peer, method, seen, headers))
            theirs = envoy.status(chain, peer, method, path, headers)
            assert theirs == (200 if ours else 403), (
                f"{json.dumps(written)} {peer!r} {method} {path} {headers}"
            )
            answers[theirs] += 1
    assert min(answers.values()) > FILTERS * REQUESTS // 10
