# SPDX-License-Identifier: Apache-2.0
"""YAML as we write it: stable, with a comment where one helps, and read the same by YAML 1.1 and 1.2.

Written by hand because a comment has to stand before an item of a list and ten thousand services have to be written in seconds.
A text is written plain only where no reader could take it for anything else, and otherwise in the double quotes of JSON.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_PLAIN: Final = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS: Final = frozenset(
    {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"}
)
_BLOCK: Final = re.compile(r"[!-~][ -~]*\n(?:[ -~]*\n)*?[ -~]*[!-~]\n")
_LINE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")


@dataclass(frozen=True, slots=True)
class Noted:
    """An item of a list or a value of a mapping with a comment before it."""

    value: Any
    note: str


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a stream with the comment at its head (one line each)."""

    value: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def write_yaml(documents: Iterable[Document], notes: Iterable[str] = ()) -> bytes:
    """Return a stream of documents; ``notes`` stand at its head.  Keys keep their order."""
    lines = [_comment(note) for note in notes]
    for document in documents:
        lines.append("---")
        lines += [_comment(note) for note in document.notes]
        lines += _mapping(document.value, 0)
    return ("\n".join(lines) + "\n").encode()


def _comment(note: str) -> str:
    text = _LINE.sub(" ", note)
    return f"# {text}" if text else "#"


def _mapping(value: Mapping[str, Any], depth: int) -> Iterator[str]:
    pad = "  " * depth
    for key, held in value.items():
        inner = held
        if isinstance(held, Noted):
            yield pad + _comment(held.note)
            inner = held.value
        yield from _entry(f"{pad}{_scalar(key)}:", inner, depth)


def _entry(head: str, value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, dict) and value:
        yield head
        yield from _mapping(value, depth + 1)
    elif isinstance(value, list | tuple) and value:
        yield head
        yield from _items(value, depth + 1)
    elif isinstance(value, str) and _BLOCK.fullmatch(value):  # a file in a ConfigMap, to be read by people
        yield f"{head} |"
        yield from (f"{'  ' * (depth + 1)}{line}" if line else "" for line in value[:-1].split("\n"))
    else:
        yield f"{head} {_leaf(value)}"


def _items(values: Iterable[Any], depth: int) -> Iterator[str]:
    pad = "  " * depth
    for held in values:
        value = held
        if isinstance(held, Noted):
            yield pad + _comment(held.note)
            value = held.value
        if isinstance(value, dict) and value:
            first, *rest = _mapping(value, depth + 1)
            while first.lstrip().startswith("#"):  # a comment of the first key stands before the dash
                yield pad + first.lstrip()
                first, *rest = rest
            yield f"{pad}- {first.lstrip()}"
            yield from rest
        elif isinstance(value, list | tuple) and value:
            yield f"{pad}-"
            yield from _items(value, depth + 1)
        else:
            yield f"{pad}- {_leaf(value)}"


def _leaf(value: Any) -> str:
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list | tuple):
        return "[]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return _LINE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
