# SPDX-License-Identifier: Apache-2.0
"""Request bodies: strict JSON, then the JSON Schema of the operation.

Asked only after a call was verified, so that nobody unknown can make us parse.  A refusal names places in the
document (JSON Pointers, RFC 6901) and never a value.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import InputError
from everyhop.jose.strict_json import load_strictly
from everyhop.sdk.model import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jsonschema.protocols import Validator

    from everyhop.sdk.context import ServiceContext
    from everyhop.sdk.model import Verified

DEFAULT_MAX_BODY: Final = 1024 * 1024
MAX_DEPTH: Final = 64
MAX_POINTERS: Final = 8

_MEDIA_TYPE: Final = re.compile(
    r"application/(?:json|[a-z0-9!#$&^_.+-]+\+json)(?:[ \t]*;[ \t]*charset=\"?utf-8\"?)?",
    re.IGNORECASE | re.ASCII,
)
_NO_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[^\[\]{}"]+', re.DOTALL)


class BodyChecks:
    """The schemas of one context, each compiled when it is first needed."""

    def __init__(self, context: ServiceContext) -> None:
        self._schemas = {one.name: one.body for one in context.operations if one.body is not None}
        self._validators: dict[str, Validator] = {}
        self._lock = threading.Lock()

    def check(
        self, verified: Verified, content_types: Sequence[str], body: bytes, *, max_bytes: int
    ) -> Refusal | None:
        """Return why a body is refused, or None when it holds (or its operation has no schema)."""
        document = self._schemas.get(verified.operation)
        if document is None:
            return None
        decision = verified.decision_id
        if len(body) > max_bytes:
            return Refusal(
                413, "BODY_TOO_LARGE", f"the body has more than {max_bytes} bytes", decision_id=decision
            )
        if len(content_types) != 1 or not _MEDIA_TYPE.fullmatch(content_types[0].strip(" \t")):
            return Refusal(415, "BODY_NOT_JSON", "Content-Type is not JSON in UTF-8", decision_id=decision)
        try:
            value = parse_body(body)
        except InputError as error:
            return Refusal(400, "BODY_MALFORMED", error.message, decision_id=decision)
        pointers = self._flaws(verified.operation, document, value)
        if pointers:
            return Refusal(
                422,
                "BODY_INVALID",
                f"the schema does not hold at {', '.join(repr(p) for p in pointers)}",
                decision_id=decision,
                pointers=pointers,
            )
        return None

    def _flaws(self, operation: str, document: bytes, value: Any) -> tuple[str, ...]:
        validator = self._validators.get(operation)
        if validator is None:
            with self._lock:
                validator = self._validators.setdefault(operation, compile_schema(document))
        found: dict[str, None] = {}
        for error in validator.iter_errors(value):
            found[pointer(error.absolute_path)] = None
            if len(found) >= MAX_POINTERS:
                break
        return tuple(found)


def compile_schema(document: bytes) -> Validator:
    """Return a validator (draft 2020-12) that can reach no other document.

    Raises InputError when the schema is none, or refers to anything but a place in itself.
    """
    from jsonschema import Draft202012Validator, SchemaError
    from referencing import Registry

    schema = parse_body(document)
    _refuse_remote(schema)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise InputError(f"not a JSON Schema: {error.message}") from error
    return Draft202012Validator(schema, registry=Registry())


def parse_body(data: bytes) -> Any:
    """Parse one JSON text that every reader reads alike.

    Raises InputError for anything but UTF-8 without a byte order mark, a repeated member at any depth, more than
    64 levels, NaN, infinities, numbers beyond a double, and halves of surrogate pairs.
    """
    try:
        text = data.decode("utf-8")
        _limit_depth(text)
        return load_strictly(text)
    except (ValueError, RecursionError) as error:
        # `from None`: the parser's error quotes the document.
        raise InputError(f"not one JSON text in UTF-8 ({type(error).__name__})") from None


def pointer(path: Iterable[str | int]) -> str:
    """Return the JSON Pointer of a place; the empty text is the whole document."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _limit_depth(text: str) -> None:
    """Refuse deep nesting before parsing: take innermost pairs away, level by level."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    brackets = _NO_BRACKETS.sub("", text)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return
        brackets = brackets.replace("[]", "").replace("{}", "")
    if brackets:
        raise InputError(f"nested deeper than {MAX_DEPTH} levels, or brackets that do not match")


def _refuse_remote(schema: object) -> None:
    """Refuse every reference that leaves the document, wherever it stands."""
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            for name in ("$ref", "$dynamicRef"):
                target = one.get(name)
                if isinstance(target, str) and not target.startswith("#"):
                    raise InputError("the schema refers to another document")
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
