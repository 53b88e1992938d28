# SPDX-License-Identifier: Apache-2.0
"""An interpreter of the few matcher forms that the compiler emits, written from Envoy's documentation.

It also holds what Envoy would fall back to, so that a test notices when a matcher relies on it.
"""

from __future__ import annotations

import re
from functools import lru_cache


class FellThrough(Exception):  # noqa: N818  # the name of what happened
    """A matcher matched nothing and named no outcome."""


compiled = lru_cache(maxsize=None)(re.compile)


def decide(config, inputs, kind="matcher"):
    """Return (name, action) of the action that a filter takes for {input name: value}."""
    action = _match(config[kind], inputs)["typed_config"]
    return action["name"], action["action"]


def _match(matcher, inputs):
    tree = matcher.get("matcher_tree")
    outcome = _tree(tree, inputs) if tree else _list(matcher["matcher_list"], inputs)
    if outcome is None:
        outcome = matcher.get("on_no_match")
    if outcome is None:
        raise FellThrough(matcher)
    return _match(outcome["matcher"], inputs) if "matcher" in outcome else outcome["action"]


def _tree(tree, inputs):
    value = inputs[tree["input"]["name"]]
    if "exact_match_map" in tree:
        return tree["exact_match_map"]["map"].get(value)
    table = tree["prefix_match_map"]["map"]
    starts = (value[:length] for length in range(len(value), -1, -1))
    return next((table[start] for start in starts if start in table), None)


def _list(entries, inputs):
    for entry in entries["matchers"]:
        predicate = entry["predicate"]["single_predicate"]
        expression = predicate["value_match"]["safe_regex"]["regex"]
        if compiled(expression, re.ASCII).fullmatch(inputs[predicate["input"]["name"]]):
            return entry["on_match"]
    return None


def regexes(value):
    """Yield every expression in a configuration."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "regex":
                yield inner
            else:
                yield from regexes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from regexes(inner)
