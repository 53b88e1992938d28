# SPDX-License-Identifier: Apache-2.0
"""Conditions for Envoy: the checked tree of one, for one caller at one door, over what Envoy knows of a request.

What comes out is a tree of the same nodes (:mod:`everyhop.conditions.ast`), whose only variables are
:data:`TIME`, :data:`PATH` and :data:`HEADERS`, besides ``in_cidr(source.address, 'net')``, for which Envoy has a
matcher of its own.  It is true, false or an error for exactly the calls for which the condition is; what cannot be
said exactly is not said at all (:class:`NotLoweredError`), and then the agent decides.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from typing import TYPE_CHECKING, Final

from everyhop.authz.facts import Call, FactSheet
from everyhop.conditions import ast
from everyhop.policy import vocabulary
from everyhop.policy.access import TCP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from everyhop.conditions import Condition
    from everyhop.policy.model import Operation, Service, Snapshot

TIME: Final = "request.time"
PATH: Final = "request.url_path"
HEADERS: Final = "request.headers"
SOURCE: Final = "source.address"
IN_CIDR: Final = "in_cidr"

MAX_NODES: Final = 300
MAX_DEPTH: Final = 30
"""Envoy's parser takes messages of a hundred levels; an expression and its call are two."""
MAX_NETWORKS: Final = 3
"""A condition is asked for each combination of the networks that it names: at most eight expressions."""
MAX_HEADERS: Final = 4

ONE_VALUE: Final = r"^[\t -+\--~]*$"
"""A value that is one: no comma, and nothing but printable ASCII (see ``authz.facts``); Envoy joins lines by commas."""

_SCALARS: Final = frozenset({"bool", "int", "double", "string", "timestamp", "duration"})
_COMPARISONS: Final = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"})
_NUMBERS: Final = frozenset({("int", "int"), ("double", "double")})
_ARITHMETIC: Final[Mapping[str, frozenset[tuple[str, ...]]]] = {
    "_+_": _NUMBERS | {("timestamp", "duration"), ("duration", "timestamp"), ("duration", "duration")},
    "_-_": _NUMBERS | {("timestamp", "duration"), ("timestamp", "timestamp"), ("duration", "duration")},
    "_*_": _NUMBERS,
    "_/_": _NUMBERS,
    "_%_": frozenset({("int", "int")}),
    "-_": frozenset({("int",), ("double",)}),
}
_TEXT: Final = frozenset({"contains", "endsWith", "startsWith"})
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_AGENTS: Final = {
    "user": "the agent verifies users",
    "device": "no proxy knows the device",
    "resource": "no proxy knows the resource",
}


class NotLoweredError(Exception):
    """Envoy cannot evaluate this exactly; the text is why, ``node`` the place."""

    def __init__(self, why: str, node: ast.Node | None = None) -> None:
        super().__init__(why)
        self.why: Final = why
        self.node: Final = node


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One caller at one door of a target; ``caller`` is None for the outside, ``operation`` for tcp."""

    caller: Service | None
    target: Service
    operation: Operation | None

    @property
    def door(self) -> str:
        """Return the name of the door."""
        return TCP if self.operation is None else self.operation.name

    @property
    def fixed_path(self) -> str | None:
        """Return the only path of this door, None where its route has a parameter (or there is none: tcp)."""
        route = None if self.operation is None else self.operation.route
        return route.template if route is not None and route.is_literal else None


class Lowering:
    """Lowers the conditions of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._facts: Final = FactSheet(snapshot)

    def condition(self, condition: Condition, place: Place) -> ast.Node:
        """Return the tree for Envoy; raises NotLoweredError."""
        tree = self.clause(condition, condition.tree, place)
        if sum(1 for _ in ast.walk(tree)) > MAX_NODES or _depth(tree) > MAX_DEPTH:
            raise NotLoweredError("it is too large")
        if len(networks(tree)) > MAX_NETWORKS:
            raise NotLoweredError(f"it names more than {MAX_NETWORKS} networks")
        return tree

    def clause(self, condition: Condition, clause: ast.Node, place: Place) -> ast.Node:
        """Return the tree of one clause of a condition; raises NotLoweredError."""
        operation = place.operation
        call = Call(
            caller=place.caller,
            target=place.target,
            door=place.door,
            operation=operation,
            method=None if operation is None else operation.route.method,
            path=None,
        )
        known = self._facts.values(condition, call)
        return _Lowered(condition, place, known).node(clause)


class _Lowered:
    """One condition at one place; ``known`` holds the constants."""

    def __init__(self, condition: Condition, place: Place, known: Mapping[str, object]) -> None:
        self._condition = condition
        self._place = place
        self._known = known

    def node(self, node: ast.Node) -> ast.Node:
        match node:
            case ast.Literal():
                return node
            case ast.ListOf(items=items):
                return replace(node, items=tuple(self.node(item) for item in items))
            case ast.Variable():
                return self._variable(node)
            case ast.MapKey():
                return self._header(node)
            case ast.HasKey():
                return self._has_header(node)
            case ast.Call():
                return self._call(node)
            case _:
                raise NotLoweredError("Envoy runs no loops", node)

    def _variable(self, node: ast.Variable) -> ast.Node:
        name = node.name
        root = name.partition(".")[0]
        if name == vocabulary.NOW:
            return replace(node, name=TIME)
        if name == "request.path" and self._place.operation is not None:
            fixed = self._place.fixed_path
            return replace(node, name=PATH) if fixed is None else literal(fixed)
        if root in {"caller", "target"} or name in {"operation", "request.method"}:
            return self._constant(node)
        raise NotLoweredError(_AGENTS.get(root, f"{name} has no equal in Envoy"), node)

    def _constant(self, node: ast.Variable) -> ast.Node:
        value = self._known.get(node.name)
        if value is None:
            return missing(node)
        match node.type, value:
            case "bool", bool():
                return literal(value)
            case ("int", int()) if not isinstance(value, bool):
                return literal(value)
            case ("double", int() | float()) if math.isfinite(value):
                return literal(float(value))
            case "string", str():
                return literal(str(value))
            case "timestamp", datetime():
                text = value.astimezone(UTC).isoformat().replace("+00:00", "Z")
                return _call("timestamp", literal(text), kind="timestamp")
            case "list(string)", list() if value:
                items = tuple(literal(str(text)) for text in value)
                return ast.ListOf(items=items, type=node.type, offset=node.offset, id=0)
        raise NotLoweredError(f"{node.name} has no literal", node)

    # -- headers

    def _header(self, node: ast.MapKey) -> ast.Node:
        self._check_header(node)
        absent = replace(node, variable=HEADERS, key="")
        return _call(ast.TERNARY, self._single, replace(node, variable=HEADERS), absent, kind="string")

    def _has_header(self, node: ast.HasKey) -> ast.Node:
        self._check_header(node)
        present = replace(node, variable=HEADERS, is_macro=False)
        return _call(ast.TERNARY, self._single, present, ERROR, kind="bool")

    def _check_header(self, node: ast.MapKey | ast.HasKey) -> None:
        if node.variable != vocabulary.HEADERS:
            raise NotLoweredError(f"Envoy has no {node.variable}", node)
        if self._place.operation is None:
            raise NotLoweredError("a connection has no headers of its caller", node)
        if len(self._condition.keys[vocabulary.HEADERS]) > MAX_HEADERS:
            raise NotLoweredError(f"it reads more than {MAX_HEADERS} headers", node)
        if vocabulary.HEADERS in self._condition.dynamic_maps:
            raise NotLoweredError("it reads headers by a computed name", node)

    @property
    def _single(self) -> ast.Node:
        """Return what is true where every header of the condition has one value or is absent; never an error.

        To the engine, one header with several values is several readings of them all.
        """
        guards = [_has_one_value(key) for key in sorted(self._condition.keys[vocabulary.HEADERS])]
        return reduce(lambda left, right: _call(ast.AND, left, right), guards)

    # -- calls

    def _call(self, node: ast.Call) -> ast.Node:
        function, kinds = node.function, tuple(argument.type for argument in node.args)
        if function == IN_CIDR:
            return self._network(node)
        if function == "starts_with_any":
            return self._prefixes(node)
        if kinds and kinds[0] == "timestamp" and function.startswith("get"):
            return self._getter(node)
        if not _is_common(node, function, kinds):
            raise NotLoweredError(f"Envoy has no equal of {_shown(function)}", node)
        return replace(node, args=tuple(self.node(argument) for argument in node.args))

    def _network(self, node: ast.Call) -> ast.Node:
        address, network = node.args
        if not (isinstance(address, ast.Variable) and address.name == "request.source_ip"):
            raise NotLoweredError("Envoy looks for networks in the caller's address only", node)
        if isinstance(network, ast.Literal) and not _holds_mapped(str(network.value)):
            return replace(node, args=(replace(address, name=SOURCE), network))
        raise NotLoweredError("Envoy reads this network in another way", node)

    def _prefixes(self, node: ast.Call) -> ast.Node:
        text, prefixes = node.args
        if not (isinstance(prefixes, ast.ListOf) and all(isinstance(p, ast.Literal) for p in prefixes.items)):
            raise NotLoweredError("the prefixes are not written out", node)
        lowered = self.node(text)
        calls = [_call("startsWith", lowered, prefix, is_member=True) for prefix in prefixes.items]
        return _balanced(ast.OR, calls)

    def _getter(self, node: ast.Call) -> ast.Node:
        """Lower ``now.getHours('+02:00')``: Envoy's own zones come from files of its host, so none is used."""
        moment = self.node(node.args[0])
        seconds = 0
        if len(node.args) > 1:
            zone = node.args[1]
            found = _offset_seconds(str(zone.value)) if isinstance(zone, ast.Literal) else None
            if found is None:
                raise NotLoweredError("Envoy knows time zones only where its host does", node)
            seconds = found
        if seconds:
            shift = _call("duration", literal(f"{seconds}s"), kind="duration")
            moment = _call("_+_", moment, shift, kind="timestamp")
        return replace(node, args=(moment,))


def networks(tree: ast.Node) -> tuple[str, ...]:
    """Return the networks that a lowered tree asks for, in the order of the text."""
    found = [
        str(node.args[1].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and node.function == IN_CIDR and isinstance(node.args[1], ast.Literal)
    ]
    return tuple(dict.fromkeys(found))


def literal(value: bool | float | str) -> ast.Literal:  # noqa: FBT001  # a constant is what it is
    """Return a constant of its type."""
    kinds = {bool: "bool", int: "int", float: "double", str: "string"}
    return ast.Literal(value=value, type=kinds[type(value)], offset=0, id=0)


def missing(node: ast.Node) -> ast.Node:
    """Return what is an error of the type of a node: the header without a name, which no request has."""
    text = ast.MapKey(variable=HEADERS, key="", type="string", offset=node.offset, id=0)
    match node.type:
        case "string":
            return text
        case "bool":
            return _call("_==_", text, literal(""))
        case "int":
            return _call("size", text, kind="int")
        case "double":
            return _call("double", _call("size", text, kind="int"), kind="double")
        case "timestamp":
            return _call("timestamp", text, kind="timestamp")
        case "list(string)":
            return ast.ListOf(items=(text,), type=node.type, offset=node.offset, id=0)
    raise NotLoweredError(f"there is no error of type {node.type}", node)


def _call(function: str, *args: ast.Node, kind: str = "bool", is_member: bool = False) -> ast.Call:
    return ast.Call(function=function, args=args, is_member=is_member, type=kind, offset=0, id=0)


ERROR: Final = missing(literal(value=True))


def _has_one_value(key: str) -> ast.Node:
    present = ast.HasKey(variable=HEADERS, key=key, is_macro=False, type="bool", offset=0, id=0)
    value = ast.MapKey(variable=HEADERS, key=key, type="string", offset=0, id=0)
    matches = _call("matches", value, literal(ONE_VALUE), is_member=True)
    return _call(ast.OR, _call(ast.NOT, present), matches)


def _balanced(function: str, nodes: Sequence[ast.Node]) -> ast.Node:
    if len(nodes) == 1:
        return nodes[0]
    middle = len(nodes) // 2
    return _call(function, _balanced(function, nodes[:middle]), _balanced(function, nodes[middle:]))


def _is_common(node: ast.Call, function: str, kinds: tuple[str, ...]) -> bool:
    """Tell whether a function is one that both sides have, with one meaning for these types."""
    if function in {ast.AND, ast.OR, ast.NOT}:
        return True
    if function == ast.TERNARY:
        return kinds[1] == kinds[2] and kinds[1] in _SCALARS
    if function in _COMPARISONS:
        return len(set(kinds)) == 1 and kinds[0] in _SCALARS
    if function == ast.IN:
        return kinds[0] in _SCALARS and kinds[1] == f"list({kinds[0]})"
    if function in {"timestamp", "duration"}:
        return isinstance(node.args[0], ast.Literal) and kinds == ("string",)
    if function == "size":
        return kinds == ("string",)
    if function in _TEXT:
        return kinds == ("string", "string")
    return kinds in _ARITHMETIC.get(function, frozenset())


def _offset_seconds(zone: str) -> int | None:
    """Return how far a zone is from UTC, None for one whose hours are in a file."""
    if zone == "UTC":
        return 0
    if zone[:1] not in {"+", "-"}:
        return None
    hours, minutes = zone[1:].split(":")
    seconds = int(hours) * 3600 + int(minutes) * 60
    return -seconds if zone[0] == "-" else seconds


def _holds_mapped(network: str) -> bool:
    """Tell whether a network holds IPv4-mapped addresses: the engine reads these as IPv4."""
    found = ipaddress.ip_network(network)
    return isinstance(found, ipaddress.IPv6Network) and found.overlaps(_MAPPED)


def _depth(tree: ast.Node) -> int:
    return 1 + max((_depth(child) for child in ast.children(tree)), default=0)


def _shown(function: str) -> str:
    return f"{function}()" if function.isidentifier() else f"'{function.strip('_')}' on these types"
