# SPDX-License-Identifier: Apache-2.0
"""Objects against the schemas of their custom resource definitions, as strictly as an API server with strict fields.

What a schema leaves open to unknown members is closed here unless the definition says that they are kept.  Rules in CEL and the
checks of webhooks are not looked at.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$"
_KEY = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
_VALUE = r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"
METADATA = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": _NAME, "maxLength": 253},
        "namespace": {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"},
        "labels": {
            "type": "object",
            "propertyNames": {"pattern": _KEY},
            "additionalProperties": {"type": "string", "pattern": _VALUE},
        },
        "annotations": {
            "type": "object",
            "propertyNames": {"pattern": _KEY},
            "additionalProperties": {"type": "string"},
        },
    },
}
_OF_FOLDER = {"cilium": "cilium.io", "cert-manager": "cert-manager.io"}


class Definitions:
    """The definitions of one directory of the shared schemas (``istio``, ``linkerd``, ...)."""

    def __init__(self, schemas: Path, *folders: str) -> None:
        self._validators: dict[tuple[str, str], Draft202012Validator] = {}
        for folder in folders:
            for path in sorted((schemas / folder).iterdir()):
                self._read(path)

    def _read(self, path: Path) -> None:
        if path.suffix == ".json":  # a schema of a catalogue: KIND_VERSION.json, kinds in lower case
            kind, _, version = path.stem.partition("_")
            group = _OF_FOLDER[path.parent.name]
            self._add(f"{group}/{version}", kind, json.loads(path.read_text()))
            return
        for document in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader):
            spec = document["spec"]
            for version in spec["versions"]:
                name = f"{spec['group']}/{version['name']}"
                self._add(name, spec["names"]["kind"], version["schema"]["openAPIV3Schema"])

    def _add(self, api_version: str, kind: str, schema: dict[str, Any]) -> None:
        strict = _strict(schema)
        properties = dict(strict.get("properties", {}))
        properties |= {
            "apiVersion": {"const": api_version},
            "kind": {"type": "string"},
            "metadata": METADATA,
        }
        root = strict | {
            "properties": properties,
            "additionalProperties": False,
            "required": sorted({*strict.get("required", ()), "apiVersion", "kind", "metadata"}),
        }
        self._validators[api_version, kind.lower()] = Draft202012Validator(root)

    def knows(self, document: dict[str, Any]) -> bool:
        """Tell whether there is a definition for an object."""
        return (document.get("apiVersion"), str(document.get("kind")).lower()) in self._validators

    def problem(self, document: dict[str, Any]) -> str | None:
        """Return what is wrong with an object, or None; an object of an unknown kind is wrong."""
        if not self.knows(document):
            return f"no definition of {document.get('apiVersion')} {document.get('kind')}"
        validator = self._validators[document["apiVersion"], document["kind"].lower()]
        found = best_match(validator.iter_errors(document))
        return None if found is None else f"{found.json_path}: {found.message[:300]}"


def objects_of(contents: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the objects of YAML files, read by a reader that is not ours."""
    for content in contents:
        yield from (one for one in yaml.load_all(content, Loader=yaml.CSafeLoader) if one is not None)


def _strict(schema: Any) -> Any:
    """Return an OpenAPI v3 schema as a JSON Schema that knows every member."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if "properties" in made:
        made["properties"] = {name: _strict(one) for name, one in made["properties"].items()}
    for key in ("items", "additionalProperties", "not", "anyOf", "oneOf", "allOf"):
        if key in made:
            made[key] = _strict(made[key])
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    keeps = schema.get("x-kubernetes-preserve-unknown-fields")
    # Only an object with a type is the description of a value; the branches of oneOf have members without being complete.
    if (
        made.get("type") == "object"
        and "properties" in made
        and "additionalProperties" not in made
        and not keeps
    ):
        made["additionalProperties"] = False
    if made.pop("nullable", False):
        made = {"anyOf": [made, {"type": "null"}]}
    return made
