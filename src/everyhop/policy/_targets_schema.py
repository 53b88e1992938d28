# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of the ``targets`` part, from the same tables as its reader."""

from __future__ import annotations

from typing import Any, Final

from everyhop.policy import _grammar as g
from everyhop.policy.targets import OPTIONS, Option, OptionKind

_TEXTS: Final = {
    OptionKind.NAME: g.DNS_LABEL,
    OptionKind.DOMAIN: g.DNS_NAME,
    OptionKind.TEXT: g.OPTION_TEXT,
    OptionKind.PATH: g.OPTION_PATH,
    OptionKind.SECONDS: g.DURATION,
}
_ITEMS: Final = {OptionKind.NAMES: g.DNS_NAME, OptionKind.TEXTS: g.OPTION_TEXT}


def targets_schema() -> dict[str, Any]:
    """Return the schema of the chapter."""
    return _object(
        {
            "trust_domain": {**_text(g.DNS_NAME), "description": "The mesh's trust domain; the policy's without it."},
            "cluster_domain": _text(g.DNS_NAME),
            "namespace": {**_text(g.DNS_LABEL), "description": "Where services stand of which nothing else is said."},
            "services": _map(g.SERVICE_NAME, _placement()),
            "gateway": _object(
                {
                    "namespace": _text(g.DNS_LABEL),
                    "service_account": _text(g.DNS_NAME),
                    "labels": _labels(),
                    "hosts": _list(g.DNS_NAME),
                },
                required=["namespace", "service_account"],
                description="The workload through which callers from outside come.",
            ),
            "tokens": _object(
                {"issuer": _text(g.HTTPS_URL), "jwks_uri": _text(g.HTTPS_URL)},
                required=list(g.TARGET_TOKENS_KEYS),
                description="Who issues access tokens.",
            ),
            "probe_networks": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "string"},
                "description": "Networks from which probes come without an identity.",
            },
            "egress": _map(g.DNS_LABEL, _egress()),
            **{name: _object({key: _option(option) for key, option in options.items()}) for name, options in OPTIONS.items()},
        },
        description="Where services stand in the systems that the policy is compiled to.",
    )  # fmt: skip


def _placement() -> dict[str, Any]:
    return _object(
        {
            "namespace": _text(g.DNS_LABEL),
            "service_account": _text(g.DNS_NAME),
            "labels": _labels(),
            "port": _number(1, g.MAX_PORT),
            "host": {
                **_text(g.HOST_AND_PORT),
                "description": "HOST:PORT of the application outside of a cluster.",
            },
            "image": _text(g.OPTION_TEXT),
            "timeout": _text(g.DURATION),
            "retries": _number(0, g.MAX_RETRIES),
        }
    )


def _egress() -> dict[str, Any]:
    return _object(
        {"host": _text(g.DNS_NAME), "port": _number(1, g.MAX_PORT), "from": _list(g.SERVICE_NAME)},
        required=["host", "from"],
    )


def _option(option: Option) -> dict[str, Any]:
    described = {"description": option.help}
    if option.choices:
        return {"enum": list(option.choices), **described}
    if option.kind is OptionKind.NUMBER:
        return {**_number(1, g.MAX_OPTION), **described}
    if option.kind is OptionKind.SWITCH:
        return {"enum": [True, False, "true", "false"], **described}
    if option.kind in _ITEMS:
        return {**_list(_ITEMS[option.kind]), **described}
    return {**_text(_TEXTS[option.kind]), **described}


def _labels() -> dict[str, Any]:
    return {
        "type": "object",
        "minProperties": 1,
        "propertyNames": _text(g.LABEL_KEY),
        "additionalProperties": _text(g.LABEL_VALUE),
    }


def _map(names: str, values: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "minProperties": 1,
        "propertyNames": _text(names),
        "additionalProperties": values,
    }


def _list(items: str) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": _text(items)}


def _text(expression: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^(?:{expression})$"}


def _number(low: int, high: int) -> dict[str, Any]:
    return {"anyOf": [{"type": "integer", "minimum": low, "maximum": high}, _text(g.DECIMAL)]}


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties, **more}
