# SPDX-License-Identifier: Apache-2.0
"""Editing a policy's text, however it is laid out: other bytes stay, it parses, and it means exactly what was intended."""

from __future__ import annotations

import yaml
from hypothesis import assume, given, strategies as st
from tests.strategies import policy_documents

from everyhop.authz.narrowing import means, narrow
from everyhop.authz.suggesting import Narrowing, Use
from everyhop.core.errors import InputError, PolicyError
from everyhop.policy import parse_policy
from everyhop.policy.edit import entry_at, remove_entry
from everyhop.policy.model import RuleEffect

COMMENTS = ("# a comment", "  # - {from: x}", "   # é", "")


@st.composite
def texts(draw):
    """A policy as text: block or flow style, indented in several ways, with comments between the lines."""
    document = draw(policy_documents())
    assume(document.get("allow"))
    text = yaml.dump(
        document,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=draw(st.sampled_from((False, None, True))),
        indent=draw(st.sampled_from((2, 4))),
        width=draw(st.sampled_from((40, 10_000))),
    )
    lines = text.split("\n")
    is_block = not text.startswith("{")
    for _ in range(draw(st.integers(0, 4)) if is_block else 0):
        at = draw(st.integers(0, len(lines) - 1))
        # Inside a value that runs over several lines a comment would end it.
        if at == 0 or lines[at - 1].rstrip().endswith((",", "[", "{")) or lines[at][:1].isspace() is False:
            lines.insert(at, draw(st.sampled_from(COMMENTS)))
    made = "\n".join(lines).encode()
    try:
        return made, parse_policy({"p.yaml": made})
    except PolicyError:
        assume(False)


def allow_rules(snapshot):
    return [rule for rule in snapshot.rules if rule.effect is RuleEffect.ALLOW]


def is_one_cut(before, after):
    """Tell whether some bytes in one place went, and nothing else."""
    start = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(after))
    gone = len(before) - len(after)
    return gone > 0 and any(
        before[:i] + before[i + gone :] == after for i in range(max(0, start - gone), start + 1)
    )


@given(texts(), st.data())
def test_a_rule_that_goes_takes_nothing_with_it(made, data):
    text, snapshot = made
    rule = data.draw(st.sampled_from(allow_rules(snapshot)))
    place = ("allow", entry_at(text, "allow", rule.span.line, rule.span.column))
    try:
        after = remove_entry(text, place)
    except InputError:
        assume(False)
    assert is_one_cut(text, after)
    unused = Narrowing(rule=rule, role=None, grant=None, keep={}, use=Use(), message="")
    changed = parse_policy({"p.yaml": after})
    assert means(changed, snapshot, [unused])


@given(texts(), st.data())
def test_rules_are_narrowed_to_what_is_kept_and_no_other_changes(made, data):
    text, snapshot = made
    wanted = []
    for rule in data.draw(
        st.lists(st.sampled_from(allow_rules(snapshot)), min_size=1, max_size=3, unique_by=id)
    ):
        keep = {}
        for key, held in (("from", rule.callers), ("to", rule.targets), ("operations", rule.operations)):
            names = sorted(held) if held else []
            if len(names) > 1 and data.draw(st.booleans()):
                some = data.draw(
                    st.lists(st.sampled_from(names), min_size=1, max_size=len(names) - 1, unique=True)
                )
                keep[key] = tuple(sorted(some))
        if rule.callers is None and data.draw(st.booleans()):
            keep["from"] = (min(snapshot.services),)
        use = Use(count=1) if keep else Use()
        wanted.append(Narrowing(rule=rule, role=None, grant=None, keep=keep, use=use, message=""))
    result = narrow(snapshot, {"p.yaml": text}, wanted)
    assert {id(n) for n in result.done} | {id(n) for n, _ in result.left} == {id(n) for n in wanted}
    after = result.files["p.yaml"]
    if not result.done:
        assert after == text
        return
    assert means(parse_policy({"p.yaml": after}), snapshot, result.done)
    assert {line for line in after.split(b"\n") if line.lstrip().startswith(b"#")} <= set(text.split(b"\n"))
