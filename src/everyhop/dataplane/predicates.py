# SPDX-License-Identifier: Apache-2.0
"""Lowered conditions as predicates of Envoy's matchers: CEL over attributes, and its own matcher for networks.

A predicate of CEL holds only where the expression is really true; where it is false or an error it does not.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final

from everyhop.conditions import ast
from everyhop.dataplane._resources import Json, extension
from everyhop.dataplane.conditions import IN_CIDR, literal, networks

if TYPE_CHECKING:
    from collections.abc import Iterator

Predicate = Json | bool
"""A predicate, or whether it always holds."""

_INPUT: Final = extension("request", "xds.type.matcher.v3.HttpAttributesCelMatchInput")
_ADDRESS: Final = extension("source", "envoy.extensions.matching.common_inputs.network.v3.SourceIPInput")
_MAPPED_BITS: Final = 96


def really_true(tree: ast.Node) -> Predicate:
    """Return what holds exactly where a lowered condition is true."""
    return _asked(folded(tree))


def really_false(tree: ast.Node) -> Predicate:
    """Return what holds exactly where a lowered condition is false, and not where it is an error."""
    return _asked(
        folded(ast.Call(function=ast.NOT, args=(tree,), is_member=False, type="bool", offset=0, id=0))
    )


def negated(predicate: Predicate) -> Predicate:
    """Return what holds exactly where a predicate does not."""
    return not predicate if isinstance(predicate, bool) else {"not_matcher": predicate}


def expressions(predicate: Predicate) -> int:
    """Return how many expressions Envoy will compile for a predicate."""
    if isinstance(predicate, bool):
        return 0
    if "single_predicate" in predicate:
        return 1
    (inner,) = predicate.values()
    return sum(map(expressions, inner.get("predicate", [inner])))


def folded(tree: ast.Node) -> ast.Node:
    """Return a tree without the literal booleans in its logic; an error that they absorb is absorbed."""
    if not isinstance(tree, ast.Call):
        return tree
    args = tuple(folded(argument) for argument in tree.args)
    known = [argument.value if isinstance(argument, ast.Literal) else None for argument in args]
    match tree.function:
        case ast.AND | ast.OR:
            decisive = tree.function == ast.OR
            if decisive in (value for value in known if isinstance(value, bool)):
                return literal(decisive)
            open_ones = [a for a, value in zip(args, known, strict=True) if not isinstance(value, bool)]
            if len(open_ones) < len(args):
                return open_ones[0] if open_ones else literal(not decisive)
        case ast.NOT if isinstance(known[0], bool):
            return literal(not known[0])
        case ast.TERNARY if isinstance(known[0], bool):
            return args[1] if known[0] else args[2]
    return replace(tree, args=args)


def _asked(tree: ast.Node) -> Predicate:
    """Return a predicate for a tree: one for each combination of its networks, of which one holds for any caller."""
    if isinstance(tree, ast.Literal):
        return bool(tree.value)
    if not (named := networks(tree)):
        return _expression(tree)
    within = _within(named[0])
    inside = _both(within, _asked(folded(_with_network(tree, named[0], is_inside=True))))
    outside = _both(negated(within), _asked(folded(_with_network(tree, named[0], is_inside=False))))
    return _either(inside, outside)


def _with_network(node: ast.Node, network: str, *, is_inside: bool) -> ast.Node:
    if isinstance(node, ast.Call):
        if node.function == IN_CIDR:
            return literal(is_inside) if networks(node) == (network,) else node
        again = partial(_with_network, network=network, is_inside=is_inside)
        return replace(node, args=tuple(map(again, node.args)))
    return node


def _both(first: Predicate, second: Predicate) -> Predicate:
    if isinstance(first, bool):
        return second if first else False
    if isinstance(second, bool):
        return first if second else False
    return {"and_matcher": {"predicate": [first, second]}}


def _either(first: Predicate, second: Predicate) -> Predicate:
    if isinstance(first, bool):
        return True if first else second
    if isinstance(second, bool):
        return True if second else first
    return {"or_matcher": {"predicate": [first, second]}}


def _within(text: str) -> Json:
    """Return what holds for callers in a network; an IPv4 address may come in IPv6's clothes."""
    network = ipaddress.ip_network(text)
    ranges = [(str(network.network_address), network.prefixlen)]
    if isinstance(network, ipaddress.IPv4Network):
        ranges.append((f"::ffff:{network.network_address}", _MAPPED_BITS + network.prefixlen))
    custom = extension(
        "network",
        "envoy.extensions.matching.input_matchers.ip.v3.Ip",
        cidr_ranges=[{"address_prefix": address, "prefix_len": length} for address, length in ranges],
        stat_prefix="networks",
    )
    return {"single_predicate": {"input": _ADDRESS, "custom_match": custom}}


def _expression(tree: ast.Node) -> Json:
    matcher = extension(
        "condition",
        "xds.type.matcher.v3.CelMatcher",
        expr_match={"cel_expr_checked": {"expr": expression(tree)}},
    )
    return {"single_predicate": {"input": _INPUT, "custom_match": matcher}}


def expression(tree: ast.Node) -> Json:
    """Return a tree as ``cel.expr.Expr``; Envoy needs no types to evaluate what was checked."""
    return _expr(tree, count(1))


def _expr(node: ast.Node, ids: Iterator[int]) -> Json:
    own = {"id": str(next(ids))}
    match node:
        case ast.Literal(value=value):
            return own | {"const_expr": _constant(value)}
        case ast.Variable(name=name):
            return own | _name(name, ids)
        case ast.MapKey(variable=name, key=key):
            key_expr = {"id": str(next(ids)), "const_expr": _constant(key)}
            args = [{"id": str(next(ids)), **_name(name, ids)}, key_expr]
            return own | {"call_expr": {"function": ast.INDEX, "args": args}}
        case ast.HasKey(variable=name, key=key):
            key_expr = {"id": str(next(ids)), "const_expr": _constant(key)}
            args = [key_expr, {"id": str(next(ids)), **_name(name, ids)}]
            return own | {"call_expr": {"function": ast.IN, "args": args}}
        case ast.ListOf(items=items):
            return own | {"list_expr": {"elements": [_expr(item, ids) for item in items]}}
        case ast.Call(function=function, args=args, is_member=is_member):
            parts = [_expr(argument, ids) for argument in args]
            call: Json = {"function": function}
            if is_member:
                call["target"], parts = parts[0], parts[1:]
            return own | {"call_expr": {**call, "args": parts} if parts else call}
    raise TypeError(f"no expression for {type(node).__name__}")


def _name(dotted: str, ids: Iterator[int]) -> Json:
    """Return a dotted name as selections from its first part, as Envoy names its attributes."""
    head, _, field = dotted.rpartition(".")
    if not head:
        return {"ident_expr": {"name": field}}
    return {"select_expr": {"operand": {"id": str(next(ids)), **_name(head, ids)}, "field": field}}


def _constant(value: bool | float | str) -> Json:  # noqa: FBT001  # a constant is what it is
    match value:
        case bool():
            return {"bool_value": value}
        case int():
            return {"int64_value": str(value)}
        case float():
            return {"double_value": value}
        case str():
            return {"string_value": value}
