# SPDX-License-Identifier: Apache-2.0
"""Every small way to break an object: what a slip of the hand, a bad merge or a bug in a compiler could do to a file."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SAFE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SWAPS = {
    "ALLOW": "DENY", "DENY": "ALLOW", "STRICT": "PERMISSIVE", "Accept": "Deny", "Deny": "Accept", "Ingress": "Egress",
    "Egress": "Ingress", "deny": "all-unauthenticated", "TCP": "UDP", "Exact": "PathPrefix", "RegularExpression": "Exact",
    "PathPrefix": "Exact", "In": "NotIn", "Exists": "DoesNotExist",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One broken set of files; ``where`` is the object and the path in it, ``how`` what was done there."""

    where: str
    how: str
    files: Mapping[str, bytes]

    def __str__(self) -> str:
        return f"{self.where}: {self.how}"


def mutants(files: Mapping[str, bytes]) -> Iterator[Mutant]:
    """Yield each breakage of each object of some files of YAML or JSON, one at a time."""
    for name in sorted(files):
        documents = [one for one in yaml.load_all(files[name], _SAFE) if one is not None]
        for index, document in enumerate(documents):
            title = f"{document.get('kind', name)} {document.get('metadata', {}).get('name', '')}".strip()
            rest = [*documents[:index], *documents[index + 1 :]]
            yield Mutant(title, "the whole object deleted", {**files, name: _dump(rest)})
            for path, how, broken in _broken(document):
                whole = [*documents[:index], broken, *documents[index + 1 :]]
                yield Mutant(f"{title} {path}", how, {**files, name: _dump(whole)})


def _dump(documents: list[Any]) -> bytes:
    return "\n".join(f"---\n{json.dumps(one)}" for one in documents).encode() + b"\n"


def _broken(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path in list(_paths(document, ())):
        if path[0] in {"apiVersion", "kind"} or path[:1] == ("status",):
            continue
        if path[0] == "metadata" and (
            len(path) == 1 or path[1] not in {"labels", "annotations", "namespace"}
        ):
            continue
        value = _at(document, path)
        shown = ".".join(str(part) for part in path)
        broken = copy.deepcopy(document)
        del _at(broken, path[:-1])[path[-1]]
        yield shown, "deleted", broken
        for how, changed in _changes(value):
            broken = copy.deepcopy(document)
            _at(broken, path[:-1])[path[-1]] = changed
            yield shown, how, broken


def _paths(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in items:
        yield (*path, key)
        yield from _paths(held, (*path, key))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


def _changes(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, bool):
        yield "flipped", not value
    elif isinstance(value, int):
        yield "one more", value + 1
    elif isinstance(value, str):
        yield from _texts(value)
    elif isinstance(value, list):
        if value:
            yield "emptied", []
            if isinstance(value[0], str):
                yield "with * added", [*value, "*"]
            else:
                yield "with {} added", [*value, {}]
    elif isinstance(value, dict) and value:
        yield "emptied", {}


def _texts(value: str) -> Iterator[tuple[str, str]]:
    if value in _SWAPS:
        yield f"made {_SWAPS[value]}", _SWAPS[value]
        return
    yield "made *", "*"
    yield "a character more", value + "x"
    if value.isdecimal():
        yield "one more", str(int(value) + 1)
        return
    if len(value) > 1:
        yield "a character less", value[:-1]
        yield "cut to a prefix", value[:-1] + "*"
        yield "cut to a suffix", "*" + value[1:]
    if value.startswith("^") or value.endswith("$"):
        yield "no longer anchored", value.removeprefix("^").removesuffix("$") + ".*"
    if "[^/" in value:
        yield "a segment made anything", re.sub(r"\[\^/[^\]]*\]\+?", ".*", value)
