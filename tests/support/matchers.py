# SPDX-License-Identifier: Apache-2.0
"""An interpreter of the few matcher forms that the compiler emits, written from Envoy's documentation.

It also holds what Envoy would fall back to, so that a test notices when a matcher relies on it.
"""

from __future__ import annotations

import ipaddress
import json
import re
from functools import lru_cache

from cel_expr_python import cel
from google.protobuf import any_pb2, json_format

from everyhop.wire.cel import CheckedExpr


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
    return next((e["on_match"] for e in entries["matchers"] if _holds(e["predicate"], inputs)), None)


def _holds(predicate, inputs):
    ((kind, inner),) = predicate.items()
    if kind == "not_matcher":
        return not _holds(inner, inputs)
    if kind in {"and_matcher", "or_matcher"}:
        assert len(inner["predicate"]) >= 2, "Envoy wants two"
        return (all if kind == "and_matcher" else any)(_holds(p, inputs) for p in inner["predicate"])
    if "value_match" in inner:
        expression = inner["value_match"]["safe_regex"]["regex"]
        return bool(compiled(expression, re.ASCII).fullmatch(inputs[inner["input"]["name"]]))
    custom = inner["custom_match"]["typed_config"]
    if custom["@type"].endswith(".Ip"):
        address = ipaddress.ip_address(inputs[inner["input"]["name"]])
        ranges = [f"{r['address_prefix']}/{r['prefix_len']}" for r in custom["cidr_ranges"]]
        return any(address in ipaddress.ip_network(text) for text in ranges)
    return is_true(custom["expr_match"]["cel_expr_checked"]["expr"], inputs["request"])


def is_true(expression, request):
    """Tell whether CEL finds an expression really true: ``request`` has time, url_path and headers (joined lines)."""
    program = _program(json.dumps(_flat(expression)))
    value = program.eval(data={f"request.{name}": known for name, known in request.items()})
    return value.type() == cel.Type.BOOL and value.value() is True


@lru_cache(maxsize=10_000)
def _program(expression):
    checked = json_format.ParseDict({"expr": json.loads(expression)}, CheckedExpr())
    packed = any_pb2.Any(
        type_url="type.googleapis.com/cel.expr.CheckedExpr", value=checked.SerializeToString()
    )
    return _environment().deserialize(packed.SerializeToString())


@lru_cache(maxsize=1)
def _environment():
    text = cel.Type.STRING
    variables = {
        "request.time": cel.Type.TIMESTAMP,
        "request.url_path": text,
        "request.headers": cel.Type.Map(text, text),
    }
    environment = cel.NewEnv(variables=variables)
    environment.compile("request.time < request.time")  # one that never compiled cannot convert a datetime
    return environment


def _flat(value):
    """Turn selections of attributes into dotted names: our CEL wants every variable declared with its type."""
    if isinstance(value, list):
        return [_flat(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if "select_expr" in value:
        select = value["select_expr"]
        name = f"{select['operand']['ident_expr']['name']}.{select['field']}"
        return {"id": value["id"], "ident_expr": {"name": name}}
    return {key: _flat(inner) for key, inner in value.items()}


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
