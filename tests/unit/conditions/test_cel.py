# SPDX-License-Identifier: Apache-2.0
"""The module that touches Google's CEL: nothing it may answer becomes true, and its texts become ours."""

from __future__ import annotations

import importlib.util
import threading

import pytest

from everyhop.conditions import Truth, ValueType, Vocabulary, _cel, compile_condition

WORDS = Vocabulary({"a": ValueType.BOOL, "m": ValueType.STRING_MAP, "s": ValueType.STRING})


class Value:
    def __init__(self, kind: object, plain: object) -> None:
        self.type = lambda: kind
        self.value = lambda: plain


class Expression:
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def eval(self, **_: object) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("plain", ["true", "INTERNAL: no", 1, True, None])
def test_what_is_no_bool_is_an_error(plain):
    assert _cel.Program(Expression(Value("ERROR", plain))).run({}).truth is Truth.ERROR


@pytest.mark.parametrize("plain", [1, "true", 0, None, [True]])
def test_a_bool_that_is_no_bool_is_an_error(plain):
    from cel_expr_python import cel

    assert _cel.Program(Expression(Value(cel.Type.BOOL, plain))).run({}).truth is Truth.ERROR


@pytest.mark.parametrize(
    "error", [RuntimeError("basic_string"), SystemError(), RecursionError(), MemoryError()]
)
def test_an_exception_is_an_error(error):
    outcome = _cel.Program(Expression(error)).run({})
    assert outcome.truth is Truth.ERROR
    assert outcome.error


@pytest.mark.parametrize(
    ("text", "keys", "expected"),
    [
        ('UNKNOWN: No value with name "user.mfa" found in Activation', {}, "user.mfa is not known"),
        ('NOT_FOUND: Key not found in map : "id"', {"m": {"id"}, "n": {"x"}}, "m has no key 'id'"),
        ('NOT_FOUND: Key not found in map : "secret"', {"m": {"id"}}, "a key is not in its map"),
        ("INVALID_ARGUMENT: divide by zero [INVALID_ARGUMENT]", {}, "divide by zero"),
        ("x\x1b[31m\ty\nz", {}, "x?[31m?y"),
        ("", {}, "unknown error"),
        ("a" * 500, {}, "a" * 200),
    ],
)
def test_error_texts(text, keys, expected):
    assert _cel.error_text(text, keys) == expected


def test_a_refusal_without_a_position():
    assert _cel.parse_errors("INTERNAL: odd [INTERNAL]") == [(1, 1, "odd")]


def test_absorption():
    """CEL's rule: what the other side decides alone, an error does not change; else it stays an error."""
    for text, truth in {
        "a && false": Truth.FALSE,
        "false && a": Truth.FALSE,
        "a || true": Truth.TRUE,
        "true || a": Truth.TRUE,
        "a && true": Truth.ERROR,
        "a || false": Truth.ERROR,
        "!a": Truth.ERROR,
        "a ? true : true": Truth.ERROR,
        "true ? true : a": Truth.TRUE,
        "s == 'x' || m.k == 'x'": Truth.ERROR,
    }.items():
        assert compile_condition(text, WORDS).evaluate({}).truth is truth, text


def test_environments_are_shared_by_equal_vocabularies():
    again = Vocabulary(dict(reversed(WORDS.variables.items())))
    assert _cel.environment(WORDS) is _cel.environment(again)
    assert _cel.environment(WORDS) is not _cel.environment(Vocabulary({"a": ValueType.BOOL}))


def test_one_condition_on_many_threads():
    condition = compile_condition("a && s.startsWith('x') && m.k == s", WORDS)
    wrong = []

    def work(n: int) -> None:
        for turn in range(300):
            text = f"{'x' if turn % 2 else 'y'}{n}"
            outcome = condition.evaluate({"a": True, "s": text, "m": {"k": text}})
            if outcome.truth is not (Truth.TRUE if turn % 2 else Truth.FALSE):
                wrong.append((n, turn, outcome))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_checked_form_is_what_another_reader_of_cel_reads():
    """With xds-protos beside the tests, Google's own messages read the same tree."""
    if importlib.util.find_spec("google.api") is None:
        pytest.skip("google.api.expr is not installed beside the tests")
    theirs = pytest.importorskip("google.api.expr.v1alpha1.checked_pb2")
    condition = compile_condition("a && m.k == s", WORDS)
    read = theirs.CheckedExpr.FromString(condition.checked)
    assert read.expr.call_expr.function == "_&&_"
    assert read.SerializeToString(deterministic=True)
    assert {reference.name for reference in read.reference_map.values()} >= {"a", "m", "s"}
