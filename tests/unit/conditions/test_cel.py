# SPDX-License-Identifier: Apache-2.0
"""The module that touches Google's CEL: nothing it may answer becomes true, and its texts become ours."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading

import pytest

from everyhop.conditions import Truth, ValueType, Vocabulary, _cel, compile_condition
from everyhop.wire import cel_pb2

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


def test_a_constant_that_does_not_even_compile_is_a_mistake():
    assert "undeclared reference" in _cel.constant_error("inf == 1.0", WORDS)


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


def test_the_room_loads_nothing_heavy_until_there_is_a_condition():
    program = "import sys, everyhop.conditions, everyhop.conditions.analysis; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    assert {"google.protobuf", "cel_expr_python", "ipaddress"} & set(loaded) == {"ipaddress"}


def nested(descriptor, prefix=""):
    """Every message of a descriptor's tree by its dotted name."""
    yield f"{prefix}{descriptor.name}", descriptor
    for inner in descriptor.nested_types:
        if not inner.GetOptions().map_entry:
            yield from nested(inner, f"{prefix}{descriptor.name}.")


def test_our_messages_are_googles():
    """Each field that we have is theirs by name, number and type; needs xds-protos beside the tests."""
    try:
        checked, syntax = (importlib.import_module(f"cel.expr.{name}_pb2") for name in ("checked", "syntax"))
    except ImportError:
        pytest.skip("xds-protos is not installed beside the tests")
    theirs = {
        name: message
        for module in (checked, syntax)
        for top in module.DESCRIPTOR.message_types_by_name.values()
        for name, message in nested(top)
    }
    for top in cel_pb2.DESCRIPTOR.message_types_by_name.values():
        for name, message in nested(top):
            for field in message.fields:
                other = theirs[name].fields_by_name[field.name]
                assert (field.number, field.type, field.is_repeated) == (
                    other.number,
                    other.type,
                    other.is_repeated,
                ), f"{name}.{field.name}"
    condition = compile_condition("a && m.k == s && ['x'].exists(e, e == s)", WORDS)
    read = checked.CheckedExpr.FromString(condition.checked)
    assert read.expr.call_expr.function == "_&&_"
    assert {reference.name for reference in read.reference_map.values()} >= {"a", "m", "s"}
