# SPDX-License-Identifier: Apache-2.0
"""Add, remove or replace one entry of a policy text, leaving every other byte as it is: comments, order, layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from everyhop.core.errors import InputError
from everyhop.policy._cutting import cut_flow, cut_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

Place = tuple[str | int, ...]
"""Where something stands: keys of mappings, and positions in lists from 0."""

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_MARK: Final = "\ufeff"
_STEP: Final = "  "
_LISTS: Final = frozenset({"allow", "deny", "shadow", "tests", "grants", "includes", "groups"})


def append_entry(content: bytes, path: Sequence[str], entry: str) -> bytes:
    """Return a policy file with one more entry at the end of the list or mapping at ``path``.

    ``content`` is a file that :func:`everyhop.policy.parse_policy` accepts as part of a policy.  ``entry`` is
    one line of flow YAML: a mapping for a list (``allow``), ``name: route`` for a mapping
    (``services.NAME.operations``).  What is missing on the way is created.  Raises InputError when a part of
    the path is not in the file and cannot be created (a service), or is no list or mapping.
    """
    text = content.decode("utf-8-sig")
    node: Any = yaml.compose(text, Loader=_LOADER)
    for depth, key in enumerate(path):
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{'.'.join(path[:depth]) or 'the file'} is not a mapping")
        child = next((value for name, value in node.value if name.value == key), None)
        if child is None:
            if depth != len(path) - 1:
                raise InputError(f"{'.'.join(path[: depth + 1])} is not in this file")
            flow, block = (f"[{entry}]", f"- {entry}") if key in _LISTS else (f"{{{entry}}}", entry)
            return _insert(text, node, f"{key}: {flow}", f"{key}:", block).encode()
        node = child
    if isinstance(node, yaml.SequenceNode):
        return _insert(text, node, entry, f"- {entry}").encode()
    if isinstance(node, yaml.MappingNode):
        return _insert(text, node, entry, entry).encode()
    raise InputError(f"{'.'.join(path)} is neither a list nor a mapping")


def entry_at(content: bytes, key: str, line: int, column: int) -> int:
    """Return the position, in the list ``key`` at the top of a file, of the entry that starts at a place.

    ``line`` and ``column`` count from 1, as in a :class:`~everyhop.core.problems.Span`.  Raises InputError where no
    entry starts there: the file is not the one that was read.
    """
    node = _node(_compose(_text(content)[1]), (key,))
    for index, item in enumerate(node.value if isinstance(node, yaml.SequenceNode) else ()):
        if (item.start_mark.line + 1, item.start_mark.column + 1) == (line, column):
            return index
    raise InputError(f"no entry of {key} starts at line {line}, column {column}")


def remove_entry(content: bytes, place: Place) -> bytes:
    """Return a policy file without one entry of a list, or without a key of a mapping and its value.

    One contiguous piece is cut out and nothing else changes; comments on lines of their own stay.  A list whose only
    entry goes goes with its key, since an empty list is a mistake.  Raises InputError where the place is not there, or
    where what is left could not stand (the only key of a mapping).
    """
    mark, text = _text(content)
    root = _compose(text)
    parent = _node(root, place[:-1])
    if isinstance(parent, yaml.SequenceNode) and len(parent.value) == 1 and place[:-1]:
        _node(root, place)
        return remove_entry(content, place[:-1])
    spans = _spans(parent)
    index = _index(parent, place)
    if len(spans) == 1:
        raise InputError(f"{_shown(place)} is the only entry there")
    if parent.flow_style:
        start, end = cut_flow(text, spans, index)
    else:
        start, end = cut_lines(text, *spans[index], is_item=isinstance(parent, yaml.SequenceNode))
    return (mark + text[:start] + text[end:]).encode()


def replace_value(content: bytes, place: Place, value: str) -> bytes:
    """Return a policy file with another value, in flow YAML on one line, where a scalar stands.

    Raises InputError where the place is not there or holds no scalar.
    """
    mark, text = _text(content)
    node = _node(_compose(text), place)
    if not isinstance(node, yaml.ScalarNode) or node.style in {"|", ">"}:
        raise InputError(f"{_shown(place)} is no value on one line")
    return (mark + text[: node.start_mark.index] + value + text[node.end_mark.index :]).encode()


def list_at(content: bytes, place: Place) -> tuple[str, ...] | str | None:
    """Return the texts of a list of scalars, the text of a scalar, or None where nothing of that kind stands."""
    try:
        node = _node(_compose(_text(content)[1]), place)
    except InputError:
        return None
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value):
        return tuple(str(item.value) for item in node.value)
    return None


def _text(content: bytes) -> tuple[str, str]:
    """Return the byte-order mark, if there is one, and the text behind it: positions count without it."""
    text = content.decode()
    return (_MARK, text[1:]) if text.startswith(_MARK) else ("", text)


def _compose(text: str) -> Any:
    return yaml.compose(text, Loader=_LOADER)


def _node(root: Any, place: Place) -> Any:
    node = root
    for depth, step in enumerate(place):
        if isinstance(step, int) and isinstance(node, yaml.SequenceNode):
            found = node.value[step] if 0 <= step < len(node.value) else None
        elif isinstance(step, str) and isinstance(node, yaml.MappingNode):
            found = next((value for name, value in node.value if name.value == step), None)
        else:
            found = None
        if found is None:
            raise InputError(f"{_shown(place[: depth + 1])} is not in this file")
        node = found
    return node


def _index(parent: Any, place: Place) -> int:
    """Return the position of the last step of a place in its parent."""
    step = place[-1]
    if isinstance(step, int) and isinstance(parent, yaml.SequenceNode) and 0 <= step < len(parent.value):
        return step
    if isinstance(parent, yaml.MappingNode):
        for index, (name, _) in enumerate(parent.value):
            if name.value == step:
                return index
    raise InputError(f"{_shown(place)} is not in this file")


def _spans(parent: Any) -> list[tuple[int, int]]:
    """Return where each entry of a list, or each key with its value, begins and ends."""
    return [
        (
            int((entry[0] if isinstance(entry, tuple) else entry).start_mark.index),
            _end(entry),
        )
        for entry in getattr(parent, "value", ())
        if not isinstance(entry, str)
    ]


def _shown(place: Place) -> str:
    return ".".join(str(step) for step in place)


def _insert(text: str, node: Any, flow: str, block: str, nested: str | None = None) -> str:
    """Put an entry after the last one of ``node``, in its own style."""
    if node.flow_style:
        if not node.value:
            at = node.start_mark.index + 1
            return f"{text[:at]}{flow}{text[at:]}"
        at = _end(node.value[-1])
        return f"{text[:at]}, {flow}{text[at:]}"
    at = _line_end(text, _end(node.value[-1]))
    indent = " " * node.start_mark.column
    lines = f"{indent}{block}\n" + (f"{indent}{_STEP}{nested}\n" if nested else "")
    newline = "" if text[:at].endswith("\n") else "\n"
    return f"{text[:at]}{newline}{lines}{text[at:]}"


def _end(node: Any) -> int:
    """Return the index after the last character of a node: of its last leaf, where the library is exact."""
    if isinstance(node, tuple):
        return _end(node[1])
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        return _end(node.value[-1])
    return int(node.end_mark.index)


def _line_end(text: str, index: int) -> int:
    if text[:index].endswith("\n"):
        return index  # a block scalar ends at the start of the next line
    found = text.find("\n", index)
    return len(text) if found < 0 else found + 1
