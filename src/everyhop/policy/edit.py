# SPDX-License-Identifier: Apache-2.0
"""Add an entry to a policy text, leaving every other byte as it is: comments, order and layout stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_STEP: Final = "  "


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
            flow, block = (f"[{entry}]", f"- {entry}") if depth == 0 else (f"{{{entry}}}", entry)
            return _insert(text, node, f"{key}: {flow}", f"{key}:", block).encode()
        node = child
    if isinstance(node, yaml.SequenceNode):
        return _insert(text, node, entry, f"- {entry}").encode()
    if isinstance(node, yaml.MappingNode):
        return _insert(text, node, entry, entry).encode()
    raise InputError(f"{'.'.join(path)} is neither a list nor a mapping")


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
