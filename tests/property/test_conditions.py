# SPDX-License-Identifier: Apache-2.0
"""Conditions: no text breaks the compiler, no value breaks an evaluation, and true is what a second reading calls true.

The second reading is plain Python: each generated expression comes with a function of its own that says what it means,
with CEL's rule for errors (``false && error`` is false, ``true || error`` is true, else an error stays one).
"""

from __future__ import annotations

import ipaddress
import operator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from hypothesis import example, given, strategies as st

from everyhop.conditions import (
    Condition,
    ConditionError,
    Truth,
    ValueType,
    Vocabulary,
    compile_condition,
)
from everyhop.conditions.analysis import MAX_VALUES, boundaries, values_of
from everyhop.conditions.rendering import render

if TYPE_CHECKING:
    from collections.abc import Callable

WORDS = Vocabulary(
    {
        "user.mfa": ValueType.BOOL,
        "user.id": ValueType.STRING,
        "user.level": ValueType.INT,
        "user.score": ValueType.DOUBLE,
        "user.roles": ValueType.STRINGS,
        "user.since": ValueType.TIMESTAMP,
        "request.source_ip": ValueType.STRING,
        "request.path_params": ValueType.STRING_MAP,
        "request.query": ValueType.STRING_MAP,
        "now": ValueType.TIMESTAMP,
    }
)


class Unevaluable(Exception):  # noqa: N818  # an error of the condition, not of the test
    """What CEL calls an error value."""


@dataclass(frozen=True)
class Twin:
    """An expression as text, and what it means."""

    text: str
    reads: frozenset[str]
    meaning: Callable[[dict[str, Any]], Any]


def read(name: str) -> Twin:
    def meaning(values: dict[str, Any]) -> Any:
        if values.get(name) is None:
            raise Unevaluable
        return values[name]

    return Twin(name, frozenset({name}), meaning)


def key(name: str, wanted: str) -> Twin:
    whole = read(name)

    def meaning(values: dict[str, Any]) -> Any:
        entries = whole.meaning(values)
        if wanted not in entries:
            raise Unevaluable
        return entries[wanted]

    return Twin(f"{name}.{wanted}", whole.reads, meaning)


def apply(text: str, function: Callable[..., Any], *parts: Twin) -> Twin:
    return Twin(
        text.format(*(part.text for part in parts)),
        frozenset().union(*(part.reads for part in parts)),
        lambda values: function(*(part.meaning(values) for part in parts)),
    )


def absorb(sign: str, deciding: bool, left: Twin, right: Twin) -> Twin:
    def meaning(values: dict[str, Any]) -> bool:
        seen = []
        for part in (left, right):
            try:
                seen.append(part.meaning(values))
            except Unevaluable:
                seen.append(None)
        if deciding in seen:
            return deciding
        if None in seen:
            raise Unevaluable
        return not deciding

    return Twin(f"({left.text}) {sign} ({right.text})", left.reads | right.reads, meaning)


def choose(condition: Twin, yes: Twin, no: Twin) -> Twin:
    return Twin(
        f"({condition.text}) ? ({yes.text}) : ({no.text})",
        condition.reads | yes.reads | no.reads,
        lambda values: (yes if condition.meaning(values) else no).meaning(values),
    )


def address_in(address: str, network: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        raise Unevaluable from None
    return (getattr(found, "ipv4_mapped", None) or found) in ipaddress.ip_network(network)


TEXTS = ("", "a", "ann", "bob", "it's", 'q"', "é", "😀", "a\\b", "line\nend", "\x7f")
NETWORKS = ("10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "2001:db8::/32", "::/0", "192.0.2.7")
COMPARISONS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def quote(text: str) -> str:
    return "'" + "".join(c if c.isalnum() else f"\\U{ord(c):08x}" for c in text) + "'"


def words(texts: tuple[str, ...]) -> str:
    return "[" + ", ".join(map(quote, texts)) + "]"


signs = st.sampled_from(sorted(COMPARISONS))
texts = st.sampled_from(TEXTS)
full_texts = st.sampled_from([text for text in TEXTS if text])
lists = st.lists(full_texts, min_size=1, max_size=3).map(tuple)
strings = st.sampled_from([read("user.id"), key("request.path_params", "id"), key("request.query", "page")])
atoms = st.one_of(
    st.just(read("user.mfa")),
    st.just(Twin("true", frozenset(), lambda _: True)),
    st.builds(
        lambda sign, n: apply(f"{{}} {sign} {n}", lambda v: COMPARISONS[sign](v, n), read("user.level")),
        signs,
        st.integers(-3, 3) | st.sampled_from([-(2**63) + 1, 2**63 - 1]),
    ),
    st.builds(
        lambda sign, x: apply(f"{{}} {sign} {x!r}", lambda v: COMPARISONS[sign](v, x), read("user.score")),
        signs,
        st.floats(-4, 4),
    ),
    st.builds(
        lambda part, sign, text: apply(
            f"{{}} {sign} {quote(text)}", lambda v: COMPARISONS[sign](v, text), part
        ),
        strings,
        st.sampled_from(["==", "!="]),
        texts,
    ),
    st.builds(lambda a, b: apply("{} == {}", operator.eq, a, b), strings, strings),
    st.builds(lambda part, many: apply(f"{{}} in {words(many)}", lambda v: v in many, part), strings, lists),
    st.builds(
        lambda part, text: apply(f"{{}}.startsWith({quote(text)})", lambda v: v.startswith(text), part),
        strings,
        full_texts,
    ),
    st.builds(
        lambda part, many: apply(f"starts_with_any({{}}, {words(many)})", lambda v: v.startswith(many), part),
        strings,
        lists,
    ),
    st.builds(
        lambda text: apply(f"has_role({{}}, {quote(text)})", lambda v: text in v, read("user.roles")),
        full_texts,
    ),
    st.builds(
        lambda many: apply(
            f"has_any({{}}, {words(many)})", lambda v: bool({*v} & {*many}), read("user.roles")
        ),
        lists,
    ),
    st.builds(
        lambda many: apply(f"has_all({{}}, {words(many)})", lambda v: {*many} <= {*v}, read("user.roles")),
        lists,
    ),
    st.builds(
        lambda text: apply(f"{{}}.exists(r, r == {quote(text)})", lambda v: text in v, read("user.roles")),
        texts,
    ),
    st.builds(
        lambda text: apply(
            f"{{}}.all(r, r != {quote(text)})", lambda v: all(r != text for r in v), read("user.roles")
        ),
        texts,
    ),
    st.builds(
        lambda text: apply(
            f"{{}}.filter(r, r == {quote(text)}).size() == 1",
            lambda v: sum(r == text for r in v) == 1,
            read("user.roles"),
        ),
        texts,
    ),
    st.builds(
        lambda network: apply(
            f"in_cidr({{}}, '{network}')", lambda v: address_in(v, network), read("request.source_ip")
        ),
        st.sampled_from(NETWORKS),
    ),
    st.builds(
        lambda zone, n: apply(
            f"{{}}.getHours('{zone}') < {n}", lambda v: v.astimezone(ZoneInfo(zone)).hour < n, read("now")
        ),
        st.sampled_from(["Europe/Paris", "America/New_York", "UTC"]),
        st.integers(0, 24),
    ),
    st.builds(
        lambda n: apply(
            f"{{}} - {{}} < duration('{n}s')",
            lambda a, b: a - b < timedelta(seconds=n),
            read("now"),
            read("user.since"),
        ),
        st.integers(-5, 7200),
    ),
    st.builds(
        lambda name, n: apply(f"{{}}.size() > {n}", lambda v: len(v) > n, read(name)),
        st.sampled_from(["user.roles", "request.query", "user.id"]),
        st.integers(0, 3),
    ),
    st.builds(
        lambda k: apply(f"'{k}' in {{}}", lambda v: k in v, read("request.query")),
        st.sampled_from(["page", "x"]),
    ),
)
twins = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds(lambda a, b: absorb("&&", False, a, b), inner, inner),
        st.builds(lambda a, b: absorb("||", True, a, b), inner, inner),
        st.builds(lambda a: apply("!({})", operator.not_, a), inner),
        st.builds(choose, inner, inner, inner),
    ),
    max_leaves=6,
)

maps = st.dictionaries(st.sampled_from(["id", "page", "x"]), texts, max_size=3)
moments = st.datetimes(
    min_value=datetime(2020, 1, 1),  # noqa: DTZ001  # the strategy puts the zone on
    max_value=datetime(2030, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "user.mfa": st.booleans(),
    "user.id": texts,
    "user.level": st.integers(-4, 4) | st.sampled_from([-(2**63), 2**63 - 1]),
    "user.score": st.floats(-5, 5),
    "user.roles": st.lists(texts, max_size=4),
    "user.since": moments,
    "request.source_ip": st.sampled_from(
        [
            "10.1.2.3",
            "11.0.0.1",
            "192.0.2.7",
            "::ffff:10.1.2.3",
            "2001:db8::1",
            "::1",
            "10.1",
            "",
            "1.2.3.4:80",
        ]
    ),
    "request.path_params": maps,
    "request.query": maps,
    "now": moments,
}
good_values = st.fixed_dictionaries({}, optional={name: values | st.none() for name, values in GOOD.items()})


class Breaks(dict[str, str]):
    """A mapping that raises whatever is asked of it."""

    def __getitem__(self, _: object) -> str:
        raise RuntimeError("no")

    __contains__ = __len__ = items = get = __getitem__  # type: ignore[assignment]


HOSTILE = {
    ValueType.BOOL: [1, 0, "true", b"", [], 1.0, object()],
    ValueType.INT: [True, 2**63, -(2**63) - 1, 1.0, "1", None.__class__, float("nan")],
    ValueType.DOUBLE: [float("nan"), float("inf"), True, "1.0", 2**60, 10**400],
    ValueType.STRING: ["\ud800", "a" * 65_537, b"a", bytearray(b"a"), 1, ["a"], "é\udfff"],
    ValueType.STRINGS: ["a", ["a", 1], ["\ud800"], ["a"] * 4097, {"a": 1}, [None], ["a" * 60_000] * 20, 3],
    ValueType.TIMESTAMP: [
        datetime(2026, 1, 1),  # noqa: DTZ001  # without a zone on purpose
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
        "2026-01-01T00:00:00Z",
        0,
        datetime(2026, 1, 1).date(),  # noqa: DTZ001
    ],
    ValueType.STRING_MAP: ["a", [("id", "a")], 1, Breaks()],
}


def compiled(twin: Twin) -> Condition:
    return compile_condition(twin.text, WORDS)


def expected(twin: Twin, values: dict[str, Any]) -> Truth:
    try:
        return Truth.TRUE if twin.meaning(values) else Truth.FALSE
    except Unevaluable:
        return Truth.ERROR


@given(twins, good_values)
def test_an_evaluation_gives_what_the_twin_says(twin, values):
    condition = compiled(twin)
    assert condition.evaluate(values).truth is expected(twin, values)
    assert condition.variables == twin.reads


@given(twins, good_values, st.data())
def test_a_hostile_value_of_what_is_read_is_an_error_and_of_what_is_not_is_ignored(twin, values, data):
    name = data.draw(st.sampled_from(sorted(WORDS.variables)))
    hostile = values | {name: data.draw(st.sampled_from(HOSTILE[WORDS.variables[name]]))}
    outcome = compiled(twin).evaluate(hostile)
    assert outcome.truth is (Truth.ERROR if name in twin.reads else expected(twin, values))
    assert outcome.error is None or (len(outcome.error) <= 200 and outcome.error.isprintable())


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    twins, st.dictionaries(st.sampled_from(sorted(WORDS.variables)), anything) | anything | st.just(Breaks())
)
def test_no_value_breaks_an_evaluation_or_its_explanation(twin, values):
    condition = compiled(twin)
    assert condition.evaluate(values).truth in Truth
    assert all(clause.text.isprintable() for clause in condition.explain(values))


@given(twins, good_values)
def test_the_clauses_of_one_condition_agree_with_it(twin, values):
    condition = compiled(twin)
    clauses = condition.explain(values)
    outcome = condition.evaluate(values)
    if all(clause.truth is Truth.TRUE for clause in clauses):
        assert outcome.truth is Truth.TRUE
    if all(clause.truth is Truth.FALSE for clause in clauses):
        assert outcome.truth is Truth.FALSE
    if all(clause.truth is not Truth.ERROR for clause in clauses):
        assert outcome.truth is not Truth.ERROR


@given(twins, good_values)
def test_a_tree_written_out_again_means_the_same(twin, values):
    condition = compiled(twin)
    again = compile_condition(render(condition.tree), WORDS)
    assert render(again.tree) == render(condition.tree)
    assert again.evaluate(values).truth is condition.evaluate(values).truth


@given(twins)
def test_boundaries_are_bounded_repeatable_and_of_the_right_types(twin):
    condition = compiled(twin)
    found = boundaries(condition)
    assert found == boundaries(compiled(twin))
    assert {name.partition("[")[0] for name in found} == condition.variables
    assert all(0 < len(values) <= MAX_VALUES for values in found.values())
    for name, values in found.items():
        for value in values:
            chosen = {other: sample[0] for other, sample in found.items()} | {name: value}
            outcome = condition.evaluate(values_of(condition, chosen))
            assert outcome.error is None or " is not " not in outcome.error.replace(" is not known", "")


TOKENS = ["(", ")", "[", "]", "{", "}", ".", ",", "?", ":", "!", "&", "|", "<", ">", "=", "+", "-", "*", "/", "%", "'", '"', "\\", "`", "&&", "||", "in", "has(", "true", "null", "1", "1u", "b'a'", "r'", "'''", "user.id", "user.mfa", "user", "request.query", ".x", "now", "exists(r,", "matches('(')", "//", "timestamp('x')", "int", "dyn(", "@result", "__x__", "getHours('x')", "😀"]
pieces = st.sampled_from([*TOKENS, " ", "\n", "\x00", "\ud800"])


@given(st.lists(pieces, max_size=30).map("".join) | st.text(max_size=60))
@example("(" * 3000)
@example("[" * 4000)
@example("!" * 4000 + "true")
@example("1+" * 2000 + "1 == 1")
@example("1 + " * 20_000 + "1 == 1")
@example("true && " * 500 + "true")
@example("true || " * 20_000 + "true")
@example("true ? " * 300 + "true" + " : false" * 300)
@example("user." * 800 + "id")
@example("user.id" + ".size()" * 500)
@example("user.roles.exists(r, " * 40 + "true" + ")" * 40)
@example("user.id.matches('" + "(a{1000})" * 60 + "')")
def test_no_text_breaks_the_compiler(text):
    try:
        condition = compile_condition(text, WORDS)
    except ConditionError as error:
        lines = text.split("\n")
        bad = [
            problem
            for problem in error.problems
            if not 1 <= problem.column <= len(lines[problem.line - 1]) + 1
            or not problem.message.isprintable()
        ]
    else:
        bad = [] if condition.evaluate({}).truth in Truth else [condition]
    assert bad == []


def test_the_comparison_finds_a_twin_that_is_turned_round():
    twin = apply("!({})", lambda value: value, read("user.mfa"))
    assert compiled(twin).evaluate({"user.mfa": True}).truth is not expected(twin, {"user.mfa": True})
