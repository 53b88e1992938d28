# SPDX-License-Identifier: Apache-2.0
"""The values that conditions read, for one call: each name of the policy's vocabulary, or that it is not known.

What has more than one reading (a header that came twice, a query parameter that came twice, bytes that are no UTF-8)
is not known, as a whole: a condition that looks whether it is there cannot be deceived by sending it twice.  A header
is one value only in printable ASCII: what other bytes mean is nowhere said (RFC 9110 section 5.5).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from everyhop.conditions import ValueType
from everyhop.policy.facts import NOTHING_KNOWN, Resource
from everyhop.policy.model import OUTSIDE, Directory, SegmentKind
from everyhop.policy.vocabulary import HEADERS, PATH_PARAMETERS, QUERY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from everyhop.conditions import Condition
    from everyhop.policy.facts import Context, User, Value
    from everyhop.policy.model import Operation, ResourceType, Service, Snapshot
    from everyhop.policy.vocabulary import Attribute

MAX_QUERY_PARAMETERS: Final = 64
_ONE_VALUE: Final = re.compile(r"[\t\x20-\x2b\x2d-\x7e]*")  # no comma
_EMPTY: Final = Directory()


class Call(NamedTuple):
    """One call at a door.  ``caller`` is None for a client from outside; ``path`` is raw, with its query."""

    caller: Service | None
    target: Service
    door: str
    operation: Operation | None
    method: str | None
    path: str | None
    context: Context = NOTHING_KNOWN


class FactSheet:
    """Reads the values for conditions under one snapshot.  Immutable in effect, safe to share between threads."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._readers: dict[str, Callable[[Call], object]] = dict(_BUILT_IN)
        self._readers |= {
            "user.roles": _of_user(lambda user: list(self.roles(user))),
            "resource.id": lambda call: _about(self.resource(call)).id,
            "resource.type": lambda call: _about(self.resource(call)).type,
        }
        for name, attribute in snapshot.attributes.of("service").items():
            self._readers[f"caller.{name}"] = _service_reader(name, attribute, is_caller=True)
            self._readers[f"target.{name}"] = _service_reader(name, attribute, is_caller=False)
        for name, attribute in snapshot.attributes.of("user").items():
            self._readers[f"user.{name}"] = self._user_reader(name, attribute)
        for name, attribute in snapshot.attributes.of("device").items():
            self._readers[f"device.{name}"] = _device_reader(name, attribute)
        for name, attribute in snapshot.attributes.of("resource").items():
            self._readers[f"resource.{name}"] = self._resource_reader(name, attribute)
        self._types: dict[str, list[ResourceType]] = {}
        for kind in snapshot.directory.resources.values():
            self._types.setdefault(kind.service, []).append(kind)
        self._inputs: dict[str, tuple[tuple[str, Callable[[Call], object]], ...]] = {}

    def values(self, condition: Condition, call: Call) -> dict[str, object]:
        """Return what a condition reads, by variable; what is not known is missing."""
        inputs = self._inputs.get(condition.text)
        if inputs is None:
            readers = {**self._readers, HEADERS: _headers_reader(condition, self._snapshot)}
            inputs = tuple((name, readers[name]) for name in sorted(condition.variables))
            self._inputs[condition.text] = inputs
        found: dict[str, object] = {}
        for name, read in inputs:
            value = read(call)
            if value is not None:
                found[name] = value
        return found

    def roles(self, user: User | None) -> tuple[str, ...]:
        """Return the names that count for a user: what the provider gives, and what the directory adds."""
        if user is None:
            return ()
        entry = self._directory(user).users.get(user.id)
        return (
            user.roles if entry is None else (*user.roles, *(r for r in entry.roles if r not in user.roles))
        )

    def resource(self, call: Call) -> Resource | None:
        """Return what a call is about: as its context says, or what its path names and the directory knows."""
        stated = call.context.resource
        directory = self._snapshot.directory.resources
        if stated is not None:
            kind = directory.get(stated.type or "")
            known = {} if kind is None else kind.items.get(stated.id or "", {})
            return Resource(type=stated.type, id=stated.id, attributes={**stated.attributes, **known})
        parameters = None
        for kind in self._types.get(call.target.name, ()):
            if kind.parameter is not None:
                parameters = path_parameters(call) if parameters is None else parameters
                if parameters and (identifier := parameters.get(kind.parameter)) is not None:
                    attributes = kind.items.get(identifier, {})
                    return Resource(type=kind.name, id=identifier, attributes=attributes)
        return None

    def _directory(self, user: User) -> Directory:
        """Return the directory as far as it speaks of this user: ids mean somebody only at one provider."""
        is_one = user.issuer is None or len(self._snapshot.user_issuers) <= 1
        return self._snapshot.directory if is_one else _EMPTY

    def _user_reader(self, name: str, attribute: Attribute) -> Callable[[Call], object]:
        def read(call: Call) -> object:
            user = call.context.user
            if user is None:
                return None
            entry = self._directory(user).users.get(user.id)
            own = user.attributes.get(name)
            return _or_default(own if entry is None else entry.attributes.get(name, own), attribute)

        return read

    def _resource_reader(self, name: str, attribute: Attribute) -> Callable[[Call], object]:
        def read(call: Call) -> object:
            resource = self.resource(call)
            return None if resource is None else _or_default(resource.attributes.get(name), attribute)

        return read


def path_parameters(call: Call) -> Mapping[str, str] | None:
    """Return the parameters of a call's path, decoded once, or None where they are not UTF-8 or there is no path."""
    if call.path is None or call.operation is None:
        return None
    segments = call.path.partition("?")[0][1:].split("/")
    found: dict[str, str] = {}
    try:
        for index, part in enumerate(call.operation.route.segments):
            if part.kind is SegmentKind.PARAMETER:
                found[part.text] = _decoded(segments[index])
            elif part.kind is SegmentKind.REST:
                found[part.text] = _decoded("/".join(segments[index:]))
    except (UnicodeDecodeError, IndexError):
        return None
    return found


def query_parameters(path: str | None) -> Mapping[str, str] | None:
    """Return the parameters of a query, or None where one came twice or cannot be read."""
    if path is None:
        return None
    query = path.partition("?")[2]
    found: dict[str, str] = {}
    if not query:
        return found
    pairs = query.split("&")
    if len(pairs) > MAX_QUERY_PARAMETERS:
        return None
    try:
        for pair in pairs:
            name, _, value = pair.replace("+", " ").partition("=")
            name = _decoded(name)
            if name in found:
                return None
            found[name] = _decoded(value)
    except UnicodeDecodeError:
        return None
    return found


def _decoded(text: str) -> str:
    if "%" not in text and text.isascii():
        return text
    raw = unquote_to_bytes(text.encode("latin-1", "replace"))
    return raw.decode("utf-8")


def _headers_reader(condition: Condition, snapshot: Snapshot) -> Callable[[Call], object]:
    """Return what reads the chosen headers that a condition looks at."""
    declared = snapshot.attributes.headers
    looked_at = declared if HEADERS in condition.dynamic_maps else condition.keys.get(HEADERS, frozenset())
    chosen = tuple(name for name in declared if name in looked_at)

    def read(call: Call) -> object:
        found: dict[str, str] = {}
        for name in chosen:
            lines = call.context.headers.get(name, ())
            if not lines:
                continue
            if len(lines) > 1 or not _ONE_VALUE.fullmatch(lines[0]):
                return None  # a list has no single value
            found[name] = lines[0]
        return found

    return read


def _service_reader(name: str, attribute: Attribute, *, is_caller: bool) -> Callable[[Call], object]:
    def read(call: Call) -> object:
        service = call.caller if is_caller else call.target
        return None if service is None else _or_default(service.attributes.get(name), attribute)

    return read


def _device_reader(name: str, attribute: Attribute) -> Callable[[Call], object]:
    return lambda call: _or_default(call.context.device.get(name), attribute)


def _or_default(value: Value | None, attribute: Attribute) -> object:
    found = attribute.default if value is None else value
    return list(found) if isinstance(found, tuple) and attribute.type is ValueType.STRINGS else found


def _about(resource: Resource | None) -> Resource:
    return resource or _NO_RESOURCE


def _of_user(read: Callable[[User], object]) -> Callable[[Call], object]:
    return lambda call: None if call.context.user is None else read(call.context.user)


_NO_RESOURCE: Final = Resource()
_BUILT_IN: Final[Mapping[str, Callable[[Call], object]]] = {
    "caller.name": lambda call: OUTSIDE if call.caller is None else call.caller.name,
    "caller.spiffe_id": lambda call: None if call.caller is None else str(call.caller.spiffe_id),
    "target.name": lambda call: call.target.name,
    "operation": lambda call: call.door,
    "user.id": _of_user(lambda user: user.id),
    "user.issuer": _of_user(lambda user: user.issuer),
    "user.mfa": _of_user(lambda user: user.is_multi_factor),
    "user.amr": _of_user(lambda user: None if user.amr is None else list(user.amr)),
    "user.acr": _of_user(lambda user: user.acr),
    "user.auth_time": _of_user(lambda user: user.auth_time),
    "request.method": lambda call: call.method,
    "request.path": lambda call: None if call.path is None else call.path.partition("?")[0],
    PATH_PARAMETERS: path_parameters,
    QUERY: lambda call: query_parameters(call.path),
    "request.source_ip": lambda call: call.context.source_ip,
    "now": lambda call: call.context.now,
}
