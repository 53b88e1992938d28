# SPDX-License-Identifier: Apache-2.0
"""The routes of a Server: a set of them for each distinct set of callers, no two sets matching the same request."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from everyhop.policy.routes import guarded_characters, overlaps
from everyhop.targets.linkerd.clients import GROUP, V1BETA3, Clients, authorizations, clients_of
from everyhop.targets.objects import grant_note, obj, object_name
from everyhop.targets.regions import Clean, more_specific, region
from everyhop.targets.yaml import Document, Noted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from everyhop.policy.model import Operation, Route
    from everyhop.targets.intents import Door, ServiceIntents
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
"""The methods that an HTTPRoute of Linkerd can name."""
MAX_PATH: Final = 1024
MAX_MATCHES: Final = 8
MAX_RULES: Final = 16
_ANCHORS: Final = len("^(?:)$")


class ServiceRoutes:
    """The routes of one HTTP service, and what could not be made one."""

    def __init__(self, view: View, service: ServiceIntents, server: str) -> None:
        self.diagnostics: Final[list[Diagnostic]] = []
        self._view = view
        self._service = service
        self._server = server
        doors = [(door, door.operation) for door in service.doors if door.operation is not None]
        self._operations = [operation for _, operation in doors]
        self._guarded = guarded_characters(tuple(operation.route for operation in self._operations))
        found = {door.name: clients_of(view, door) for door, _ in doors}
        self._clients: Mapping[str, Clients] = {name: clients for name, (clients, _) in found.items()}
        self._sets: dict[Clients, list[tuple[Door, Noted]]] = defaultdict(list)
        for door, operation in doors:
            clients, grants = found[door.name]
            if clients:
                note = grant_note(door, *grants)
                self._sets[clients] += [
                    (door, Noted(match, note)) for match in self._matches(door, operation)
                ]

    @property
    def clients(self) -> tuple[Clients, ...]:
        """Return the distinct sets of callers for which there is a route."""
        return tuple(clients for clients, matches in self._sets.items() if matches)

    def documents(self) -> Iterator[Document]:
        """Yield each route with the policies that open it; at least one route, for without any Linkerd makes its own.

        Linkerd's own would let whatever a pod declares as a probe be asked from everywhere.
        """
        if not self.clients:
            yield self._closed()
        for clients in self.clients:
            matches = self._sets[clients]
            for number, part in enumerate(_chunks(matches, MAX_MATCHES * MAX_RULES)):
                yield from self._route(clients, part, number)

    def _route(
        self, clients: Clients, matches: Sequence[tuple[Door, Noted]], number: int
    ) -> Iterator[Document]:
        further = [str(number)] if number else []
        name = object_name("route", self._service.name, *clients.names, *further)
        rules = [{"matches": [noted for _, noted in part]} for part in _chunks(matches, MAX_MATCHES)]
        doors = ", ".join(dict.fromkeys(str(door) for door, _ in matches))
        yield Document(self._object(name, rules), (doors,))
        yield from authorizations(
            self._view, self._service.place.namespace, "HTTPRoute", name, clients, doors
        )

    def _closed(self) -> Document:
        name = object_name("closed", self._service.name)
        rules = [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]
        return Document(self._object(name, rules), ("Open to nobody: there is no policy for this route.",))

    def _object(self, name: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
        parent = {"group": GROUP, "kind": "Server", "name": self._server}
        spec = {"parentRefs": [parent], "rules": rules}
        return obj(self._view, V1BETA3, "HTTPRoute", name, self._service.place.namespace, spec)

    # -- matches

    def _matches(self, door: Door, operation: Operation) -> Iterator[dict[str, Any]]:
        method = operation.route.method
        if method not in METHODS:
            message = f"linkerd cannot match the method {method} of {door}: an HTTPRoute has {', '.join(sorted(METHODS))}"
            self.diagnostics.append(self._view.error("method", message, door=door))
            return
        for kind, value in self._paths(door, operation):
            yield {"path": {"type": kind, "value": value}, "method": method}

    def _paths(self, door: Door, operation: Operation) -> Iterator[tuple[str, str]]:
        if operation.route.is_literal:
            yield "Exact", operation.route.template  # no other route is more specific than an exact path
            return
        others = [
            other
            for other, clients in self._more_specific(operation)
            if overlaps(other, operation.route) and clients != self._clients[door.name]
        ]
        for encoded in (True, False):
            clean = Clean.of(self._guarded, encoded=encoded)
            found = region(operation.route, others, clean, MAX_PATH - _ANCHORS)
            if found is not None:
                if not encoded:
                    self._say_narrower(door)
                for text in found:
                    yield "RegularExpression", f"^(?:{text})$"
                return
        message = (
            f"linkerd cannot match the path of {door}: its expression has more than {MAX_PATH} characters"
        )
        self.diagnostics.append(self._view.error("path-length", message, door=door))

    def _more_specific(self, operation: Operation) -> Iterator[tuple[Route, Clients]]:
        for other in more_specific(operation, self._operations):
            yield other.route, self._clients[other.name]

    def _say_narrower(self, door: Door) -> None:
        message = (
            f"linkerd refuses percent-encoded characters on the path of {door}: an expression for both has more than "
            f"{MAX_PATH} characters"
        )
        self.diagnostics.append(self._view.warning("encoded-characters", message, door=door))


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
