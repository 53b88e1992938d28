# SPDX-License-Identifier: Apache-2.0
"""The only module that touches Google's CEL: environments, compiling, running, and the sense of its error texts."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

from everyhop.conditions._helpers import HELPERS
from everyhop.conditions.limits import MAX_ERROR
from everyhop.conditions.model import Outcome, Truth, ValueType, Vocabulary
from everyhop.wire.cel import CheckedExpr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cel_expr_python import cel

_TYPE_URL: Final = "type.googleapis.com/cel.expr.CheckedExpr"
_VOCABULARIES: Final = 64  # environments kept; a process has one, or one per policy that is compared


class RefusedError(Exception):
    """CEL does not accept the text; ``errors`` holds offset-free (line, column, text), all from CEL."""

    def __init__(self, errors: list[tuple[int, int, str]]) -> None:
        super().__init__(errors)
        self.errors = errors


@lru_cache(maxsize=_VOCABULARIES)
def environment(vocabulary: Vocabulary) -> cel.Env:
    """Return the environment of a vocabulary.  The first one of a process takes up to 0.2 s."""
    from cel_expr_python import cel

    text = cel.Type.STRING
    kinds = {
        ValueType.BOOL: cel.Type.BOOL,
        ValueType.INT: cel.Type.INT,
        ValueType.DOUBLE: cel.Type.DOUBLE,
        ValueType.STRING: text,
        ValueType.STRINGS: cel.Type.List(text),
        ValueType.TIMESTAMP: cel.Type.TIMESTAMP,
        ValueType.STRING_MAP: cel.Type.Map(text, text),
    }
    words = {"string": text, "list(string)": cel.Type.List(text)}
    functions = [
        cel.FunctionDecl(
            name,
            [
                cel.Overload(
                    f"everyhop_{name}",
                    cel.Type.BOOL,
                    [words[parameter] for parameter in helper.parameters],
                    False,
                    helper.function,
                )
            ],
        )
        for name, helper in HELPERS.items()
    ]
    variables = {name: kinds[kind] for name, kind in vocabulary.variables.items()}
    return cel.NewEnv(variables=variables, functions=functions)


class Program:
    """A compiled expression: CEL's own, and its checked form."""

    def __init__(self, expression: Any, keys: Mapping[str, frozenset[str]] | None = None) -> None:
        """Take an expression of CEL, and the literal keys that it reads, which its error texts may name."""
        from cel_expr_python import cel

        self._expression = expression
        self._bool = cel.Type.BOOL
        self._keys = keys or {}

    def naming(self, keys: Mapping[str, frozenset[str]]) -> Program:
        """Return the same program with the literal keys of its maps."""
        return Program(self._expression, keys)

    def run(self, data: Mapping[str, Any]) -> Outcome:
        """Evaluate.  TRUE is only what CEL calls a BOOL and Python ``True``; never raises."""
        try:
            value = self._expression.eval(data=data)
            if value.type() == self._bool:
                plain = value.value()
                if plain is True:
                    return _TRUE
                if plain is False:
                    return _FALSE
            return Outcome(Truth.ERROR, error_text(str(value.value()), self._keys))
        except Exception as error:  # noqa: BLE001  # whatever the C++ side or a helper throws is a deny
            return Outcome(Truth.ERROR, error_text(str(error)))


_TRUE: Final = Outcome(Truth.TRUE)
_FALSE: Final = Outcome(Truth.FALSE)


def compile_text(text: str, vocabulary: Vocabulary) -> tuple[Program, CheckedExpr, bytes]:
    """Compile and type-check; return the program and its CheckedExpr, parsed and as it was.  Raises RefusedError."""
    try:
        expression = environment(vocabulary).compile(text)
        packed = any_pb2.Any.FromString(expression.serialize())
        return Program(expression), CheckedExpr.FromString(packed.value), packed.value
    except (RuntimeError, DecodeError, UnicodeError) as error:
        raise RefusedError(parse_errors(str(error))) from None


def constant_error(text: str, vocabulary: Vocabulary) -> str | None:
    """Return why an expression without variables cannot be evaluated, or None if it can."""
    from cel_expr_python import cel

    value = environment(vocabulary).compile(text).eval(data={})
    return error_text(str(value.value())) if value.type() == cel.Type.ERROR else None


def load(checked: CheckedExpr, vocabulary: Vocabulary, keys: Mapping[str, frozenset[str]]) -> Program:
    """Return the program of a checked expression, such as a part of one that was compiled, with its literal keys."""
    packed = any_pb2.Any(type_url=_TYPE_URL, value=checked.SerializeToString())
    return Program(environment(vocabulary).deserialize(packed.SerializeToString()), keys)


def constant_value(text: str, vocabulary: Vocabulary) -> object:
    """Return the Python value of an expression without variables; only for one that ``constant_error`` has passed."""
    return environment(vocabulary).compile(text).eval(data={}).value()


_ERROR: Final = re.compile(r"^(?:[A-Z_]+: )?ERROR: <input>:(\d+):(\d+): (.*)$", re.MULTILINE)
_STATUS_TAIL: Final = re.compile(r" \[[A-Z_]+\]$")
_STATUS_HEAD: Final = re.compile(r"^[A-Z_]+: ")
_UNKNOWN_VALUE: Final = re.compile(r'No value with name "([^"]+)" found in Activation')


def parse_errors(text: str) -> list[tuple[int, int, str]]:
    """Return line, column and message of each mistake in the text of CEL's refusal."""
    found = [(int(line), int(column), message) for line, column, message in _ERROR.findall(text)]
    if found:
        return [(line, column, _STATUS_TAIL.sub("", message)) for line, column, message in found]
    plain = _STATUS_TAIL.sub("", _STATUS_HEAD.sub("", text))
    if (
        "recursion" in plain
    ):  # a limit of CEL's: 32 brackets, or 32 operators of one chain that is not && or ||
        plain = "the condition is nested too deeply"
    return [(1, 1, plain)]


def error_text(text: str, keys: Mapping[str, frozenset[str]] | None = None) -> str:
    """Return one short printable line for an evaluation's error, without values of the request.

    Of the keys that CEL names only those are repeated which stand in the condition, as ``keys`` of their maps.
    """
    if missing := _UNKNOWN_VALUE.search(text):
        return f"{missing[1]} is not known"
    if "Key not found" in text:
        asked = [
            f"{name} has no key {key!r}"
            for name in keys or {}
            for key in (keys or {})[name]
            if f'"{key}"' in text
        ]
        return min(asked, default="a key is not in its map")
    plain = _STATUS_TAIL.sub("", _STATUS_HEAD.sub("", text.partition("\n")[0]))
    return "".join(c if c.isprintable() else "?" for c in plain[:MAX_ERROR]) or "unknown error"
