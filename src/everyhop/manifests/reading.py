# SPDX-License-Identifier: Apache-2.0
"""YAML streams to objects.

Read as Kubernetes reads them: YAML 1.1 scalars by the library's safe loader, several documents in a file, ``List`` objects taken
apart.  Refused is what readers differ over or what a hostile file could do: duplicate keys, aliases, tags, great depth and size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from everyhop.core.errors import InputError
from everyhop.core.problems import Span
from everyhop.manifests.model import Manifest, Manifests

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
MAX_DEPTH: Final = 64
DEFAULT_NAMESPACE: Final = "default"
_LIST: Final = "List"
_SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SAFE):  # type: ignore[misc]  # the base is C's where it was built
    """The safe loader without aliases, merges and duplicate keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  # the library's shape
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _problem("a key is no text", key)
            if key.tag == "tag:yaml.org,2002:merge":
                raise _problem("merge keys are not read here", key)
            if key.value in seen:
                raise _problem(f"the key {key.value[:60]!r} stands twice", key)
            seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return {
            str(key) if not isinstance(key, bool) else _text_of(key): value for key, value in found.items()
        }


def _text_of(key: bool) -> str:  # noqa: FBT001  # YAML 1.1 makes a truth value of a key such as `on`
    return "true" if key else "false"


def _problem(message: str, node: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=message, problem_mark=node.start_mark)


def read_manifests(files: Mapping[str, bytes]) -> Manifests:
    """Read files of YAML or JSON, name to content (UTF-8, at most 64 MiB each), in the order of their names.

    Empty documents are skipped.  Raises InputError, with file and line, for what is no object of Kubernetes.
    """
    return Manifests(tuple(one for name in sorted(files) for one in _read(name, files[name])))


def _read(name: str, content: bytes) -> Iterator[Manifest]:
    if len(content) > MAX_FILE_BYTES:
        raise InputError(f"{name}: a file of manifests has at most {MAX_FILE_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: this is not UTF-8 text") from error
    _check_events(name, text)
    try:
        loader = _Loader(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                span = Span(file=name, line=node.start_mark.line + 1, column=node.start_mark.column + 1)
                yield from _objects(loader.construct_document(node), span)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _syntax(name, error) from error
    except ValueError as error:  # a scalar that looks like a date and is none
        raise InputError(f"{name}: {error}") from error


def _check_events(name: str, text: str) -> None:
    """Refuse depth and aliases before anything is composed: the library recurses there."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_SAFE):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise InputError(f"{name}:{_line(event)}: anchors and aliases are not read here")
            if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                depth += 1
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                depth -= 1
            if depth > MAX_DEPTH:
                raise InputError(f"{name}:{_line(event)}: more than {MAX_DEPTH} levels deep")
    except yaml.YAMLError as error:
        raise _syntax(name, error) from error


def _line(event: yaml.Event) -> int:
    return 1 if event.start_mark is None else event.start_mark.line + 1


def _syntax(name: str, error: yaml.YAMLError) -> InputError:
    mark = getattr(error, "problem_mark", None)
    where = name if mark is None else f"{name}:{mark.line + 1}:{mark.column + 1}"
    return InputError(f"{where}: {getattr(error, 'problem', None) or 'this is not YAML'}")


def _objects(document: Any, span: Span) -> Iterator[Manifest]:
    if document is None:
        return
    if not isinstance(document, dict):
        raise InputError(f"{span}: expected an object with apiVersion and kind")
    api_version, kind = document.get("apiVersion"), document.get("kind")
    if not isinstance(api_version, str) or not isinstance(kind, str):
        raise InputError(f"{span}: apiVersion and kind are missing or no text")
    if kind.endswith(_LIST) and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _objects(item, span)
        return
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise InputError(f"{span}: {kind} has no metadata.name")
    namespace = metadata.get("namespace", DEFAULT_NAMESPACE)
    if not isinstance(namespace, str):
        raise InputError(f"{span}: {kind} {metadata['name']}: metadata.namespace is no text")
    yield Manifest(
        api_version=api_version,
        kind=kind,
        name=metadata["name"],
        namespace=namespace,
        document=document,
        span=span,
    )
