# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of an operation's request body: a document beside the policy, or JSON text in place."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

import msgspec

from everyhop.policy import _grammar as g
from everyhop.policy._fields import read_text
from everyhop.policy.model import BodySchema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from everyhop.policy._nodes import Node
    from everyhop.policy._problems import Problems

_ENCODER = msgspec.json.Encoder(order="sorted")
_MAX_DEPTH = 32


def read_body(
    node: Node, documents: Mapping[str, bytes], where: str, problems: Problems
) -> BodySchema | None:
    """Return the schema that ``body`` names (a ``.json`` file relative to the policy file) or holds (JSON text)."""
    text = read_text(node, f"{where}: body", problems)
    if text is None:
        return None
    if text.lstrip().startswith("{"):
        return _parse(text.encode(), node, f"{where}: body", problems)
    name = posixpath.normpath(posixpath.join(posixpath.dirname(node.file), text))
    if text.startswith("/") or ".." in text.split("/") or not text.endswith(".json"):
        message = f"{where}: body: {text[:80]!r} is not the name of a .json file beside the policy"
        problems.add("value", node.span, message, "for example create.schema.json")
        return None
    if name not in documents:
        known = {posixpath.relpath(n, posixpath.dirname(node.file) or ".") for n in documents}
        message = f"{where}: body: there is no file {text[:80]!r}"
        problems.add("body", node.span, message, problems.guess(text, known))
        return None
    return _parse(documents[name], node, f"{where}: body: {text}", problems)


def _parse(data: bytes, node: Node, where: str, problems: Problems) -> BodySchema | None:
    try:
        if len(data) > g.MAX_SCHEMA_BYTES:
            raise ValueError(f"a schema has at most {g.MAX_SCHEMA_BYTES} bytes")
        schema = msgspec.json.decode(data)
        _check(schema)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        problems.add("body", node.span, f"{where}: not a usable JSON Schema: {str(error)[:200]}")
        return None
    return BodySchema(document=_ENCODER.encode(schema))


def _check(schema: Any) -> None:
    """Raise ValueError for what is no schema, or would have to be fetched from somewhere."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    if not isinstance(schema, dict):
        raise ValueError("a schema is a JSON object")  # noqa: TRY004  # one kind of error for the caller
    for key, value in _members(schema, 0):
        if key in {"$ref", "$dynamicRef"} and not (isinstance(value, str) and value.startswith("#")):
            raise ValueError(f"{key} may point into the same document only (#/$defs/...)")
        if key == "$schema" and value != "https://json-schema.org/draft/2020-12/schema":
            raise ValueError("the dialect is draft 2020-12")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"{error.json_path}: {error.message}") from error


def _members(value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > _MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, dict):
        yield from value.items()
        for item in value.values():
            yield from _members(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _members(item, depth + 1)
