# SPDX-License-Identifier: Apache-2.0
"""Conditions in Rego.

A condition is true, false or an error, and Rego knows true and undefined.  So each part of a condition becomes two rules, one
that holds where the part is true and one where it is false; an error is where neither does.  The undefined of a missing fact is
the error of an absent variable.  What has no form here raises :class:`NoFormError`; nothing is approximated.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.conditions import ast
from everyhop.conditions.model import ValueType
from everyhop.policy.vocabulary import HEADERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from everyhop.conditions import Condition

_COMPARED: Final = {
    "_==_": ("==", "!="),
    "_!=_": ("!=", "=="),
    "_<_": ("<", ">="),
    "_<=_": ("<=", ">"),
    "_>_": (">", "<="),
    "_>=_": (">=", "<"),
}
_TEXTUAL: Final = {"startsWith": "startswith", "endsWith": "endswith", "contains": "contains"}
_SCALARS: Final = frozenset({"bool", "int", "double", "string"})
_ORDERED: Final = frozenset({"int", "double", "string"})
_TYPES: Final = {
    ValueType.BOOL: "fits_bool",
    ValueType.INT: "fits_whole",
    ValueType.DOUBLE: "fits_number",
    ValueType.STRING: "fits_text",
    ValueType.STRINGS: "fits_texts",
}
KNOWN: Final = frozenset(
    {
        "caller.name", "caller.spiffe_id", "target.name", "operation", "user.id", "user.issuer", "user.roles", "user.mfa",
        "user.amr", "user.acr", "request.method", "request.path", "request.source_ip",
    }
)  # fmt: skip
"""The built-in facts that the rules find in their input; attributes come on top, and the chosen headers."""
_KINDS: Final = ("caller.", "target.", "user.", "device.")
_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_KEYWORDS: Final = frozenset(
    {
        "as",
        "contains",
        "default",
        "else",
        "every",
        "false",
        "if",
        "import",
        "in",
        "not",
        "null",
        "package",
        "some",
        "true",
        "with",
    }
)
_ELSEWHERE: Final = frozenset({"user.auth_time"})


class NoFormError(Exception):
    """A part of a condition that has no form in Rego; the text says which."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """A condition as rules: ``name_true`` and ``name_false``."""

    name: str
    text: str
    reads: frozenset[str]
    rules: tuple[str, ...]


def lower(name: str, condition: Condition, declared_headers: Sequence[str]) -> Lowered:
    """Return a condition as rules; raises NoFormError."""
    lowering = _Lowering(name, condition, declared_headers)
    lowering.node("", condition.tree)
    if HEADERS in condition.variables:
        lowering.rules.append(f"{name}_headers := headers({json.dumps(lowering.headers)})\n")
    checks = [lowering.typed(variable) for variable in sorted(condition.variables)]
    rules = list(lowering.rules)
    rules += [_rule(f"{name}_{truth}", [*checks, f"{name}_{truth[0]}"]) for truth in ("true", "false")]
    return Lowered(name, condition.text, condition.variables, tuple(rules))


def fact_of(variable: str) -> str:
    """Return how a rule reads a fact; undefined where it is not known."""
    return f"facts[{json.dumps(variable)}]"


def _rule(name: str, body: Sequence[str]) -> str:
    if len(body) == 1:
        return f"{name} if {body[0]}\n"
    return "\n".join((f"{name} if {{", *(f"\t{line}" for line in body), "}\n"))


class _Lowering:
    def __init__(self, name: str, condition: Condition, declared_headers: Sequence[str]) -> None:
        self.rules: list[str] = []
        self._name = name
        self._condition = condition
        looked = set(condition.keys.get(HEADERS, ()))
        if HEADERS in condition.dynamic_maps:
            raise NoFormError("a computed key of request.headers")
        self.headers = [header for header in declared_headers if header in looked]

    def typed(self, variable: str) -> str:
        """Return a check that a fact is of its type or not known: any other value is an error of the whole condition."""
        if variable == HEADERS:
            return f"fits_headers({json.dumps(self.headers)})"
        kind = self._condition.vocabulary.variables[variable]
        if kind not in _TYPES:
            raise NoFormError(f"{variable}, which is of type {kind.value}")
        return f"{_TYPES[kind]}(object.get(facts, {json.dumps(variable)}, null))"

    def node(self, place: str, node: ast.Node) -> str:
        """Write the rules of a part that is true or false; return their name without ``_t`` and ``_f``."""
        name = f"{self._name}{place}"
        match node:
            case ast.Call(function=function, args=args) if function in {
                ast.AND,
                ast.OR,
                ast.NOT,
                ast.TERNARY,
            }:
                parts = [self.node(f"{place}_{index}", part) for index, part in enumerate(args)]
                self._joined(name, function, parts)
            case ast.HasKey(variable=variable, key=key):
                held = f"object.get({self._map(variable)}, {json.dumps(key)}, null)"
                self._leaf(name, [f"{held} != null"], [f"{held} == null"])
            case ast.Call():
                self._called(name, node)
            case ast.Variable() | ast.Literal():
                term = self.term(node)
                self._leaf(name, [f"{term} == true"], [f"{term} == false"])
            case _:
                raise NoFormError(_shown(node))
        return name

    def _joined(self, name: str, function: str, parts: list[str]) -> None:
        true, false = [f"{part}_t" for part in parts], [f"{part}_f" for part in parts]
        if function == ast.NOT:
            self._leaf(name, false, true)
        elif function == ast.TERNARY:
            for end in ("t", "f"):
                self.rules.append(_rule(f"{name}_{end}", [true[0], f"{parts[1]}_{end}"]))
                self.rules.append(_rule(f"{name}_{end}", [false[0], f"{parts[2]}_{end}"]))
        else:
            every, some, all_of, one_of = (
                ("t", "f", true, false) if function == ast.AND else ("f", "t", false, true)
            )
            self.rules.append(_rule(f"{name}_{every}", all_of))
            self.rules += [_rule(f"{name}_{some}", [one]) for one in one_of]

    def _leaf(self, name: str, true: Sequence[str], false: Sequence[str]) -> None:
        self.rules += [_rule(f"{name}_t", true), _rule(f"{name}_f", false)]

    def _called(self, name: str, node: ast.Call) -> None:
        function, args = node.function, node.args
        if function in _COMPARED:
            self._compared(name, node)
        elif function == ast.IN:
            self._member(name, args[0], args[1])
        elif function == "has_role":
            self._member(name, args[1], args[0])
        elif function in _TEXTUAL and len(args) == 2:  # noqa: PLR2004  # the text and the part
            call = f"{_TEXTUAL[function]}({self.term(args[0])}, {self.term(args[1])})"
            self._leaf(name, [f"{call} == true"], [f"{call} == false"])
        elif function in {"has_any", "has_all"}:
            self._sets(name, function, args)
        else:
            raise NoFormError(_shown(node))

    def _compared(self, name: str, node: ast.Call) -> None:
        left, right = node.args
        allowed = _SCALARS if node.function in {"_==_", "_!=_"} else _ORDERED
        if left.type not in allowed or left.type != right.type:
            raise NoFormError(f"a comparison of {left.type}")
        first, second = self.term(left), self.term(right)
        sign, opposite = _COMPARED[node.function]
        self._leaf(name, [f"{first} {sign} {second}"], [f"{first} {opposite} {second}"])

    def _member(self, name: str, element: ast.Node, items: ast.Node) -> None:
        if isinstance(items, ast.Variable) and items.type.startswith("map"):
            raise NoFormError("a computed key of a map")
        if element.type not in _SCALARS:
            raise NoFormError(f"a list of {element.type}")
        given = [f"element := {self.term(element)}", f"items := {self.term(items)}"]
        self._leaf(name, [*given, "element in items"], [*given, "not element in items"])

    def _sets(self, name: str, function: str, args: Sequence[ast.Node]) -> None:
        given = [f"first := {self.term(args[0])}", f"second := {self.term(args[1])}", *_AS_SETS]
        if function == "has_any":
            self._leaf(name, [*given, "count(held & wanted) > 0"], [*given, "count(held & wanted) == 0"])
        else:  # nothing to hold is an error
            given.append("count(wanted) > 0")
            self._leaf(name, [*given, "count(wanted - held) == 0"], [*given, "count(wanted - held) > 0"])

    def term(self, node: ast.Node) -> str:
        """Return a value as a term that is undefined where the value is an error."""
        match node:
            case ast.Literal(value=value):
                return json.dumps(value)
            case ast.Variable(name=name) if name != HEADERS:
                self._refuse_unknown(name)
                return fact_of(name)
            case ast.MapKey(variable=variable, key=key):
                return f"{self._map(variable)}[{json.dumps(key)}]"
            case ast.ListOf(items=items):
                return f"[{', '.join(self.term(item) for item in items)}]"
            case _:
                raise NoFormError(_shown(node))

    def _map(self, variable: str) -> str:
        if variable != HEADERS:
            raise NoFormError(variable)
        return f"{self._name}_headers"

    def _refuse_unknown(self, name: str) -> None:
        is_attribute = name.startswith(_KINDS) and name not in _ELSEWHERE
        if name not in KNOWN and not is_attribute:
            raise NoFormError(name)


_AS_SETS: Final = ("held := {one | some one in first}", "wanted := {one | some one in second}")


def facts_of(variables: Iterable[str]) -> Iterator[str]:
    """Yield the rules that find the facts which conditions read, each undefined where it is not known."""
    for variable in sorted(set(variables)):
        kind, _, name = variable.partition(".")
        text = f".{name}" if _NAME.fullmatch(name) and name not in _KEYWORDS else f"[{json.dumps(name)}]"
        if variable in _BUILT_IN:
            yield f"{fact_of(variable)} := value if {_BUILT_IN[variable]}"
        elif kind in {"caller", "target"}:
            owner = "caller" if kind == "caller" else "input.target"
            yield f"{fact_of(variable)} := value if value := policy.attributes[{owner}]{text}"
        else:
            yield f"{fact_of(variable)} := value if value := {kind}_attributes{text}"


_BUILT_IN: Final = {
    "caller.name": "value := caller",
    "caller.spiffe_id": '{ value := input.caller; caller != "outside" }',
    "target.name": "value := input.target",
    "operation": "value := door_name",
    "user.id": "value := input.user.id",
    "user.issuer": "{ value := input.user.issuer; value != null }",
    "user.roles": "value := user_roles",
    "user.mfa": '{ amr := input.user.amr; is_array(amr); value := count([one | some one in amr; one == "mfa"]) > 0 }',
    "user.amr": "{ value := input.user.amr; value != null }",
    "user.acr": "{ value := input.user.acr; value != null }",
    "request.method": "value := input.method",
    "request.path": "value := bare_path",
    "request.source_ip": "{ value := input.source_ip; value != null }",
}  # fmt: skip


def _shown(node: ast.Node) -> str:
    match node:
        case ast.Call(function=function):
            return f"{function.strip('_')}()"
        case ast.Loop(macro=macro):
            return f"{macro}()"
        case ast.Variable(name=name) | ast.MapKey(variable=name):
            return name
        case _:
            return type(node).__name__
