# SPDX-License-Identifier: Apache-2.0
"""JSON Schema (2020-12) of what we write: records, and the OCSF events that they become."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any, Final

import msgspec

from everyhop.auditlog.model import Record
from everyhop.auditlog.ocsf.classes import AnyEvent
from everyhop.auditlog.ocsf.values import VERSION

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class SchemaFormat(StrEnum):
    """Of what."""

    OCSF = "ocsf"
    RECORD = "record"


def schema_of(wanted: SchemaFormat) -> dict[str, Any]:
    """Return the schema as a document; it changes only by additions within a version of everyhop."""
    if wanted is SchemaFormat.RECORD:
        title, found = "records of everyhop's audit log", msgspec.json.schema(Record)
    else:
        title, found = f"OCSF {VERSION} events as everyhop writes them", msgspec.json.schema(AnyEvent)
    return {"$schema": _DIALECT, "title": title, **_tidy(found)}


def render_schema(wanted: SchemaFormat) -> str:
    """Return the schema as text, always the same for the same code."""
    return json.dumps(schema_of(wanted), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _tidy(found: Any) -> Any:  # JSON
    """Return a schema with patterns that every dialect of expressions reads, and texts on one line."""
    if isinstance(found, list):
        return [_tidy(item) for item in found]
    if not isinstance(found, dict):
        return found
    tidy = {name: _tidy(value) for name, value in found.items()}
    if isinstance(pattern := tidy.get("pattern"), str):
        tidy["pattern"] = pattern.replace(r"\A", "^").replace(r"\Z", "$")
    if isinstance(text := tidy.get("description"), str):
        tidy["description"] = " ".join(text.split())
    return tidy
