# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of the policy file, for editors (draft 2020-12).

It accepts what the parser accepts as far as a schema can say it; references between names, one shape per route
and agreement between files are the parser's.  An editor reads ``5432`` and ``true`` as numbers and
booleans, so those forms are accepted beside their text.
"""

from __future__ import annotations

from typing import Any

from everyhop.policy import _grammar as g

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TRUE: dict[str, Any] = {"enum": [True, "true"]}


def json_schema() -> dict[str, Any]:
    """Return the schema of one policy file as a JSON object."""
    return {
        "$schema": _DIALECT,
        "title": "everyhop policy, version 1",
        "type": "object",
        "required": ["version"],
        "additionalProperties": False,
        "properties": {
            "version": {"enum": [1, g.VERSION], "description": "The version of the policy language."},
            "trust_domain": {
                "type": "string",
                "pattern": r"^[a-z0-9._-]{1,255}$",
                "description": "The SPIFFE trust domain, e.g. shop.example.",
            },
            "identity": _ref("identity"),
            "services": {
                "type": "object",
                "propertyNames": {"pattern": f"^(?!(?:any|all)$){g.SERVICE_NAME}$"},
                "additionalProperties": _ref("service"),
            },
            "allow": _list(_ref("rule"), "Who may call what; without a rule nobody may."),
            "deny": _list(_ref("rule"), "What nobody of these may call, whatever allow says."),
            "tests": _list(_ref("test"), "Calls with the answer they must get; checked on every load."),
        },
        "$defs": {
            "identity": _identity(),
            "service": _service(),
            "workload": _workload(),
            "operation": _operation(),
            "probe": _operation(websocket=False),
            "names": _names(),
            "rule": _rule(),
            "test": _test(),
        },
    }


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _list(item: dict[str, Any], description: str) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": item, "description": description}


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties, **more}


def _number(low: int, high: int) -> dict[str, Any]:
    return {"anyOf": [{"type": "integer", "minimum": low, "maximum": high}, _pattern(g.DECIMAL)]}


def _pattern(expression: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^(?:{expression})$"}


def _identity() -> dict[str, Any]:
    segment = r"/(?!\.\.?(?:/|$))(?:[a-zA-Z0-9._-]|\{service\})+"
    return {
        **_pattern(rf"(?!/everyhop(?:/|$))(?:{segment})+"),
        "description": "The path of the SPIFFE ID; {service} stands for the service's name.",
    }


def _service() -> dict[str, Any]:
    properties = {
        "workload": _list(_ref("workload"), "How an instance is recognised: alternatives."),
        "operations": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": f"^(?!all$){g.OPERATION_NAME}$"},
            "additionalProperties": _ref("operation"),
            "description": "The only doors; everything else is denied.",
        },
        "probes": _list(_ref("probe"), "Health checks that every declared service may call."),
        "tcp": {**_number(1, g.MAX_PORT), "description": "The port of a service that does not speak HTTP."},
        "identity": _ref("identity"),
    }
    unlike = {"not": {"required": ["tcp"], "anyOf": [{"required": ["operations"]}, {"required": ["probes"]}]}}
    return _object(properties, **unlike)


def _workload() -> dict[str, Any]:
    no_dots = {"not": {"pattern": r"/\.\.?(?:/|$)"}}
    unix = _object(
        {
            "uid": _number(0, g.MAX_ID_NUMBER),
            "user": _pattern(g.ACCOUNT_NAME),
            "gid": _number(0, g.MAX_ID_NUMBER),
            "group": _pattern(g.ACCOUNT_NAME),
            "path": {**_pattern(g.ABSOLUTE_PATH), **no_dots},
            "sha256": _pattern(g.SHA256),
        },
        minProperties=1,
    )
    run = {**_TRUE, "description": "Started by `everyhop run`."}
    return _object({"unix": unix, "run": run}, minProperties=1, description="All of these must hold.")


def _operation(*, websocket: bool = True) -> dict[str, Any]:
    segment = rf"(?!\.\.?(?:/|$))(?:{g.LITERAL}|\{{{g.PARAMETER_NAME}\}})"
    path = rf"/(?:{segment}/)*(?:{segment}|\{{{g.PARAMETER_NAME}\.\.\.\}})?"
    route = {
        **_pattern(f"(?:{'|'.join(g.METHODS)}) {path}"),
        "description": "METHOD /path, e.g. GET /orders/{id}",
    }
    forms = {"route": route, "grpc": {**_pattern(g.GRPC_METHOD), "description": "package.Service/Method"}}
    if websocket:
        forms["websocket"] = {**_pattern(path), "description": "/path"}
    return {"oneOf": [route, _object(forms, minProperties=1, maxProperties=1)]}


def _names() -> dict[str, Any]:
    name = _pattern(f"(?!(?:any|all)$){g.SERVICE_NAME}")
    many = {"type": "array", "minItems": 1, "uniqueItems": True, "items": name}
    return {"oneOf": [{"const": "any"}, name, many]}


def _rule() -> dict[str, Any]:
    names = {
        "type": "array",
        "minItems": 1,
        "uniqueItems": True,
        "items": _pattern(f"(?!all$){g.OPERATION_NAME}"),
    }
    properties = {
        "from": {**_ref("names"), "description": "Who calls."},
        "to": {**_ref("names"), "description": "Whom."},
        "operations": {"oneOf": [{"const": g.ALL}, names], "description": "Names of operations, or all."},
        "id": {**_pattern(g.RULE_ID), "description": "A name of its own instead of allow[N] or deny[N]."},
        "reason": {"type": "string", "minLength": 1, "description": "Shown when the rule decides."},
    }
    return _object(properties, required=["from", "to"])


def _test() -> dict[str, Any]:
    name = _pattern(f"(?!(?:any|all)$){g.SERVICE_NAME}")
    stranger = {"type": "string", "pattern": "^spiffe://"}
    properties = {
        "from": {"anyOf": [name, stranger], "description": "A service, or the SPIFFE ID of a stranger."},
        "call": {**_pattern(f"{g.METHOD_NAME} .+"), "description": "METHOD /path"},
        "tcp": _TRUE,
        "to": name,
        "expect": {"enum": ["allow", "deny"]},
    }
    either = {"oneOf": [{"required": ["call"]}, {"required": ["tcp"]}]}
    return _object(properties, required=["from", "to", "expect"], **either)
