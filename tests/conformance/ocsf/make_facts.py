# SPDX-License-Identifier: Apache-2.0
"""Make ``facts.json``: what the OCSF schema says of exactly those members that our structs have.

    python tests/conformance/ocsf/make_facts.py CHECKOUT RELEASE NEXT

CHECKOUT is a clone of ocsf/ocsf-schema, RELEASE and NEXT are its revisions of the version that we write and of the one
that has the profile for attestations.  Only names, requirements, types and the captions of values that we use are taken.
"""

from __future__ import annotations

import enum
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from everyhop.auditlog.ocsf.classes import AnyEvent

HERE = Path(__file__).parent
PROFILES = ("security_control", "trace", "record_integrity")


class Schema:
    """One revision of the schema's sources."""

    def __init__(self, checkout: str, revision: str) -> None:
        self._git = ["git", "-C", checkout]
        self._revision = revision
        names = self._run("ls-tree", "-r", "--name-only", revision, "events", "objects").splitlines()
        self._paths = {Path(name).stem: name for name in names if name.startswith("events/")}
        self._objects = {Path(name).stem: name for name in names if name.startswith("objects/")}
        dictionary = self._json("dictionary.json")
        self.dictionary = dictionary["attributes"]
        self.types = dictionary["types"]["attributes"]
        self.categories = self._json("categories.json")["attributes"]
        self.version = self._json("version.json")["version"]

    def _run(self, *arguments: str) -> str:
        return subprocess.run([*self._git, *arguments], check=True, capture_output=True, text=True).stdout

    def _json(self, path: str) -> dict[str, Any]:
        return json.loads(self._run("show", f"{self._revision}:{path}"))

    def event(self, uid: int) -> tuple[str, dict[str, Any]]:
        for name, path in self._paths.items():
            found = self._json(path)
            if found.get("uid") is not None and self._uid(name) == uid:
                return name, self.resolved(name, self._paths)
        raise LookupError(uid)

    def _uid(self, name: str) -> int:
        category = self._inherited(name, self._paths, "category")
        return self.categories[category]["uid"] * 1000 + self._json(self._paths[name])["uid"]

    def category(self, name: str) -> int:
        return self.categories[self._inherited(name, self._paths, "category")]["uid"]

    def object(self, name: str) -> dict[str, Any]:
        return self.resolved(name, self._objects)

    def _inherited(self, name: str, paths: dict[str, str], member: str) -> Any:
        found = self._json(paths[name])
        return found[member] if member in found else self._inherited(found["extends"], paths, member)

    def resolved(self, name: str, paths: dict[str, str]) -> dict[str, Any]:
        """Return attributes and constraints with those of the parents and of our profiles."""
        own = self._json(paths[name])
        above = (
            self.resolved(own["extends"], paths)
            if "extends" in own
            else {"attributes": {}, "constraints": {}}
        )
        attributes = above["attributes"]
        for profile in own.get("profiles", ()):
            if profile in PROFILES:
                self._merge(attributes, self._json(f"profiles/{profile}.json")["attributes"])
        self._merge(attributes, {k: v for k, v in own.get("attributes", {}).items() if k != "$include"})
        return {"attributes": attributes, "constraints": own.get("constraints", above["constraints"])}

    @staticmethod
    def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
        for name, told in more.items():
            known = into.setdefault(name, {})
            enumeration = {**known.get("enum", {}), **told.get("enum", {})}
            known.update(told)
            if enumeration:
                known["enum"] = enumeration


def facts(schema: Schema) -> dict[str, Any]:
    """Return the table for one revision, walking our structs and the schema side by side."""
    objects: dict[str, Any] = {}
    classes = {}
    for kind in msgspec.inspect.type_info(AnyEvent).types:
        name, told = schema.event(kind.tag)
        classes[str(kind.tag)] = {"name": name, "category_uid": schema.category(name)} | entry(
            schema, kind, told, objects
        )
    return {"classes": classes, "objects": dict(sorted(objects.items()))}


def entry(schema: Schema, kind: Any, told: dict[str, Any], objects: dict[str, Any]) -> dict[str, Any]:
    attributes = {}
    for field in kind.fields:
        name = field.encode_name
        if name not in told["attributes"]:
            continue  # the test finds it missing
        known = schema.dictionary[name] | told["attributes"][name]
        inner = struct_of(field.type)
        attributes[name] = known["type"] + ("[]" if known.get("is_array") else "")
        if values := values_of(field.type):
            attributes[name] = captions(schema, name, known, values)
        if inner is not None and known["type"] not in {"object", "json_t"} and known["type"] not in objects:
            objects[known["type"]] = {}
            objects[known["type"]] = entry(schema, inner, schema.object(known["type"]), objects)
    required = sorted(n for n, a in told["attributes"].items() if a.get("requirement") == "required")
    return {"required": required, "constraints": told["constraints"], "attributes": attributes}


def captions(schema: Schema, name: str, known: dict[str, Any], values: list[int]) -> dict[str, str]:
    everything = {**schema.dictionary[name].get("enum", {}), **known.get("enum", {})}
    if name == "type_id" and set(everything) <= {"0", "99"}:  # observables: numbered by their types
        for told in (*schema.types.values(), *schema.dictionary.values()):
            if isinstance(told.get("observable"), int):
                everything[str(told["observable"])] = {"caption": told["caption"]}
    return {str(value): everything[str(value)]["caption"] for value in values if str(value) in everything}


def struct_of(kind: Any) -> Any:
    """Return the struct inside a type of msgspec's, if there is one."""
    if isinstance(kind, msgspec.inspect.StructType):
        return kind
    if isinstance(kind, msgspec.inspect.UnionType):
        return next((found for found in map(struct_of, kind.types) if found is not None), None)
    if isinstance(kind, msgspec.inspect.VarTupleType):
        return struct_of(kind.item_type)
    return None


def values_of(kind: Any) -> list[int]:
    """Return the values of the enumeration inside a type of msgspec's."""
    if isinstance(kind, msgspec.inspect.EnumType) and issubclass(kind.cls, enum.IntEnum):
        return sorted(member.value for member in kind.cls)
    if isinstance(kind, msgspec.inspect.UnionType):
        return next((found for found in map(values_of, kind.types) if found), [])
    return []


def main() -> None:
    """Write the table."""
    checkout, *revisions = sys.argv[1:]
    table = {}
    for revision in revisions:
        schema = Schema(checkout, revision)
        table[schema.version] = facts(schema)
    (HERE / "facts.json").write_text(render(table), encoding="utf-8")


def render(table: dict[str, Any]) -> str:
    """Return the table with one line for each class and object."""
    versions = []
    for version, shelves in table.items():
        parts = []
        for shelf, entries in shelves.items():
            lines = [
                f"   {json.dumps(name)}: {json.dumps(told, sort_keys=True)}" for name, told in entries.items()
            ]
            parts.append(f"  {json.dumps(shelf)}: {{\n" + ",\n".join(lines) + "\n  }")
        versions.append(f" {json.dumps(version)}: {{\n" + ",\n".join(parts) + "\n }")
    return "{\n" + ",\n".join(versions) + "\n}\n"


if __name__ == "__main__":
    main()
