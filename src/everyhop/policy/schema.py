# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of the policy file, for editors (draft 2020-12).

It accepts what the parser accepts as far as a schema can say it; references between names, one shape per route
and agreement between files are the parser's.  An editor reads ``5432`` and ``true`` as numbers and
booleans, so those forms are accepted beside their text.
"""

from __future__ import annotations

from typing import Any

from everyhop.policy import _grammar as g
from everyhop.policy._targets_schema import targets_schema

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TRUE: dict[str, Any] = {"enum": [True, "true"]}
_MODE: dict[str, Any] = {"enum": ["enforce", "shadow"]}
_FREE = f"(?!(?:{'|'.join(sorted(g.RESERVED_SERVICE_NAMES))})$)"


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
                "propertyNames": {"pattern": f"^{_FREE}{g.SERVICE_NAME}$"},
                "additionalProperties": _ref("service"),
            },
            "mode": {**_MODE, "description": "shadow: the whole policy is only watched."},
            "attributes": _attributes(),
            "roles": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": _pattern(g.ROLE_NAME),
                "additionalProperties": _ref("role"),
                "description": "What people may do: grants of SERVICE.OPERATION.",
            },
            "shadow": _list(_edge(), "Edges on which the policy is only watched."),
            "directory": _directory(),
            "detect": _detect(),
            "audit": _audit(),
            "targets": targets_schema(),
            "users": _users(),
            "allow": _list(_ref("allow_rule"), "Who may call what; without a rule nobody may."),
            "deny": _list(_ref("deny_rule"), "What nobody of these may call, whatever allow says."),
            "tests": _list(_ref("test"), "Calls with the answer they must get; checked on every load."),
        },
        "$defs": {
            "identity": _identity(),
            "service": _service(),
            "workload": _workload(),
            "operation": _operation(),
            "probe": _operation(is_probe=True),
            "names": _names(),
            "callers": _names(outside=True),
            "allow_rule": _rule(user=True),
            "deny_rule": _rule(),
            "role": _role(),
            "values": _values(),
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
        "attributes": _ref("values"),
        "canary": {**_TRUE, "description": "It must never be called: whoever does is found."},
    }
    doors = [{"required": [key]} for key in ("operations", "probes")]
    unlike = [{"required": ["tcp"], "anyOf": doors}, {"required": ["canary"], "anyOf": _real()}]
    return _object(properties, allOf=[{"not": one} for one in unlike])


def _real() -> list[dict[str, Any]]:
    return [{"required": [key]} for key in g.NOT_OF_CANARIES]


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


def _operation(*, is_probe: bool = False) -> dict[str, Any]:
    segment = rf"(?!\.\.?(?:/|$))(?:{g.LITERAL}|\{{{g.PARAMETER_NAME}\}})"
    path = rf"/(?:{segment}/)*(?:{segment}|\{{{g.PARAMETER_NAME}\.\.\.\}})?"
    route = {
        **_pattern(f"(?:{'|'.join(g.METHODS)}) {path}"),
        "description": "METHOD /path, e.g. GET /orders/{id}",
    }
    forms = {"route": route, "grpc": {**_pattern(g.GRPC_METHOD), "description": "package.Service/Method"}}
    if is_probe:
        return {"oneOf": [route, _object(forms, minProperties=1, maxProperties=1)]}
    forms["websocket"] = {**_pattern(path), "description": "/path"}
    more = {
        "token": {
            "enum": ["none", "required", "operation"],
            "description": "A call carries an access token for the service, or for this operation alone.",
        },
        "once": {"enum": [True, "true", False, "false"], "description": "A token is good for one call."},
        "body": {"type": "string", "minLength": 1, "description": "A JSON Schema beside the policy file."},
        "resource": {
            "const": "application",
            "description": "The application checks what conditions say of resources, with the SDK.",
        },
    }
    one_form: dict[str, Any] = {"oneOf": [{"required": [form]} for form in forms]}
    needs = {
        "if": {"required": ["once"], "properties": {"once": _TRUE}},
        "then": {"required": ["token"], "properties": {"token": {"not": {"const": "none"}}}},
    }
    body = {"dependentRequired": {"body": ["route"], "resource": ["route"]}}
    return {"oneOf": [route, _object({**forms, **more}, **one_form, **needs, **body)]}


def _users() -> dict[str, Any]:
    url = {"type": "string", "pattern": r"^https?://[^\s?#@]+$", "maxLength": g.MAX_URL}
    algorithm = {"enum": list(g.USER_ALGORITHMS)}
    audience = _pattern(g.AUDIENCE)
    issuer = {
        "issuer": {**url, "description": "The exact `iss` of its tokens."},
        "audience": {
            "oneOf": [audience, {"type": "array", "minItems": 1, "uniqueItems": True, "items": audience}]
        },
        "jwks": {**url, "description": "Where its keys are; by discovery without it."},
        "roles": {
            **_pattern(rf"{g.CLAIM_NAME}(?:\.{g.CLAIM_NAME}){{0,7}}"),
            "description": "The path of the claim that holds a user's roles.",
        },
        "attributes": {
            "type": "object",
            "propertyNames": _pattern(g.ATTRIBUTE_NAME),
            "additionalProperties": _pattern(rf"{g.CLAIM_NAME}(?:\.{g.CLAIM_NAME}){{0,7}}"),
            "description": "Declared attributes of users, each with the path of the claim that states it.",
        },
        "algorithms": {
            "oneOf": [algorithm, {"type": "array", "minItems": 1, "uniqueItems": True, "items": algorithm}]
        },
    }
    issuers = _list(
        _object(issuer, required=["issuer", "audience"]), "OpenID providers whose users are believed."
    )
    return _object({"issuers": issuers}, required=["issuers"])


def _names(*, outside: bool = False) -> dict[str, Any]:
    name = _pattern(f"{_FREE}{g.SERVICE_NAME}")
    if outside:
        name = {"anyOf": [{"const": "outside"}, name]}
    many = {"type": "array", "minItems": 1, "uniqueItems": True, "items": name}
    return {"oneOf": [{"const": "any"}, name, many]}


def _rule(*, user: bool = False) -> dict[str, Any]:
    names = {
        "type": "array",
        "minItems": 1,
        "uniqueItems": True,
        "items": _pattern(f"(?!all$){g.OPERATION_NAME}"),
    }
    properties = {
        "from": {**_ref("callers"), "description": "Who calls."},
        "to": {**_ref("names"), "description": "Whom."},
        "operations": {"oneOf": [{"const": g.ALL}, names], "description": "Names of operations, or all."},
        "id": {**_pattern(g.RULE_ID), "description": "A name of its own instead of allow[N] or deny[N]."},
        "reason": {"type": "string", "minLength": 1, "description": "Shown when the rule decides."},
        "when": {
            "type": "string",
            "minLength": 1,
            "maxLength": g.MAX_CONDITION,
            "description": "A condition in CEL; the rule matches only where it is true.",
        },
        "mode": {**_MODE, "description": "shadow: the rule is only watched."},
    }
    if user:
        properties["user"] = {
            "enum": ["none", "optional", "required"],
            "description": "Whether the call is made for a user.",
        }
    return _object(properties, required=["from", "to"])


def _test() -> dict[str, Any]:
    name = _pattern(f"(?!(?:any|all)$){g.SERVICE_NAME}")  # `outside` may be asked about too
    stranger = {"type": "string", "pattern": "^spiffe://"}
    properties = {
        "from": {"anyOf": [name, stranger], "description": "A service, or the SPIFFE ID of a stranger."},
        "call": {**_pattern(f"{g.METHOD_NAME} .+"), "description": "METHOD /path"},
        "tcp": _TRUE,
        "to": _pattern(f"{_FREE}{g.SERVICE_NAME}"),
        "expect": {"enum": ["allow", "deny"]},
        "user": {"type": "object", "description": "For whom: id, roles, mfa, and declared attributes."},
        "at": _pattern(g.MOMENT),
        "headers": {"type": "object", "minProperties": 1},
        "source_ip": {"type": "string", "minLength": 2},
        "device": _ref("values"),
        "resource": {"type": "object", "description": "About what: type, id, and declared attributes."},
    }
    either = {"oneOf": [{"required": ["call"]}, {"required": ["tcp"]}]}
    return _object(properties, required=["from", "to", "expect"], **either)


def _edge() -> dict[str, Any]:
    return _object({"from": _ref("names"), "to": _ref("names")}, required=["from", "to"])


def _role() -> dict[str, Any]:
    grant = _pattern(rf"{g.SERVICE_NAME}\.(?:{g.OPERATION_NAME}|\*)")
    grants = {"type": "array", "minItems": 1, "uniqueItems": True, "items": grant}
    others = {"type": "array", "minItems": 1, "uniqueItems": True}
    properties = {
        "includes": {**others, "items": _pattern(g.ROLE_NAME)},
        "grants": grants,
        "groups": {**others, "items": {"type": "string", "minLength": 1, "maxLength": 255}},
    }
    return {"oneOf": [grants, _object(properties, minProperties=1)]}


def _attributes() -> dict[str, Any]:
    kind = {"enum": list(g.ATTRIBUTE_TYPES)}
    typed = _object({"type": kind, "default": True}, required=["type"])
    declared = {
        "type": "object",
        "minProperties": 1,
        "propertyNames": _pattern(g.ATTRIBUTE_NAME),
        "additionalProperties": {"oneOf": [kind, typed]},
    }
    names = {"type": "array", "minItems": 1, "uniqueItems": True, "items": _pattern(g.HEADER_NAME)}
    properties = {name: declared for name in g.ATTRIBUTES_KEYS if name != "request"}
    properties["request"] = _object({"headers": names})
    return _object(
        properties, description="What conditions may read besides the names that every policy has."
    )


def _values() -> dict[str, Any]:
    return {"type": "object", "propertyNames": _pattern(g.ATTRIBUTE_NAME)}


def _directory() -> dict[str, Any]:
    user = _object({"roles": {"type": "array", "items": {"type": "string"}}, "attributes": _ref("values")})
    properties = {
        "service": _pattern(f"{_FREE}{g.SERVICE_NAME}"),
        "parameter": _pattern(g.PARAMETER_NAME),
        "items": {"type": "object", "additionalProperties": _ref("values")},
    }
    resource = _object(properties, required=["service"])
    return _object(
        {
            "users": {"type": "object", "additionalProperties": user},
            "resources": {"type": "object", "additionalProperties": resource},
        },
        description="Users and resources that the decision point knows by itself.",
    )


def _audit() -> dict[str, Any]:
    readers = {
        "type": "array",
        "minItems": 1,
        "uniqueItems": True,
        "items": _pattern(g.SERVICE_NAME),
        "description": "Services that may read records of the audit log, by their SVID.",
    }
    return _object({"readers": readers}, required=["readers"], description="Who may read the audit log.")


def _detect() -> dict[str, Any]:
    return _object(
        {
            "mode": {"enum": ["enforce", "observe"], "description": "observe: findings only, no blocks."},
            "window": _pattern(g.DURATION),
            "users": _limits(),
            "api_keys": _limits(),
            "addresses": _limits(),
            "services": _limits(),
            "per_service": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": _pattern(g.SERVICE_NAME),
                "additionalProperties": _limits(expected_rate=_pattern(g.RATE)),
                "description": "Thresholds of single services.",
            },
            "exempt": {
                "type": "array",
                "minItems": 1,
                "items": _pattern(g.EXEMPTION),
                "description": f"Never blocked by a detector: {g.EXEMPTION_HINT}.",
            },
            "on_error": {"enum": ["local", "allow"], "description": "While shared counters do not answer."},
            "breaker": {
                "oneOf": [
                    {"const": "off"},
                    _object({"share": _pattern(g.PERCENT), "within": _pattern(g.DURATION)}),
                ],
                "description": "Too many subjects at once: alert instead of blocking.",
            },
            "detectors": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": _pattern(g.DETECTOR_NAME),
                "additionalProperties": {
                    "oneOf": [
                        {"enum": ["on", "off"]},
                        {"type": "object", "additionalProperties": {"type": ["string", "number"]}},
                    ]
                },
                "description": "What is set of the detectors beside the thresholds.",
            },
        },
        description="How much is too much, and what happens then.",
    )


def _limits(**more: Any) -> dict[str, Any]:
    number = {"oneOf": [{"const": "never"}, _number(1, g.MAX_THRESHOLD)]}
    outcomes = {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"enum": list(g.COUNTED)}}
    properties = {
        "alert": number,
        "block": number,
        "block_for": _pattern(g.DURATION),
        "count": {"oneOf": [{"const": g.ALL}, outcomes]},
        **more,
    }
    return {"oneOf": [{"const": "off"}, _object(properties)]}
