# SPDX-License-Identifier: Apache-2.0
"""How a request finds its one route (linkerd/http/route/src).

Of all routes and rules that match, the best is taken: by host, then by the number of characters of the path, of headers, of query
parameters, by method; among equals the first, which is the oldest route.  The query is no part of the path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from everyhop.evaluators.regex import FirstMatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T = TypeVar("T")
_PATH: Final = re.compile(r"[!\"$-;=@-_a-~]*")

Rank = tuple[int, ...]
"""How good a match is; the greater, the better."""


class Seen(NamedTuple):
    """What a proxy sees of a request."""

    method: str
    host: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, tuple[str, ...]]


def see(method: str, path: str, host: str, headers: Mapping[str, tuple[str, ...]]) -> Seen | None:
    """Return a request as the proxy parses it, None where it is none (400)."""
    whole = path.partition("#")[0]
    bare, mark, query = whole.partition("?")
    if not bare.startswith("/") or not _PATH.fullmatch(bare):
        return None
    pairs = tuple(parse_qsl(query, keep_blank_values=True)) if mark else ()
    return Seen(method, re.sub(r":\d*$", "", host), bare, pairs, headers)


class Kind(StrEnum):
    """How a path, a header or a parameter is compared."""

    EXACT = "Exact"
    PREFIX = "PathPrefix"
    REGEX = "RegularExpression"


@dataclass(frozen=True, slots=True)
class Text:
    """A text that has to be equal, or whose first match of an expression has to span it."""

    exact: str | None = None
    regex: FirstMatch | None = None

    def fits(self, text: str) -> bool:
        """Tell whether a text fits."""
        return text == self.exact if self.regex is None else self.regex(text)


@dataclass(frozen=True, slots=True)
class Path:
    """A path by one of the three kinds."""

    kind: Kind
    text: str
    regex: FirstMatch | None = None

    def length(self, path: str) -> int | None:
        """Return how many characters of a path it matches, None where it does not; kinds do not count for the rank."""
        if self.kind is Kind.EXACT:
            return len(self.text) if path == self.text else None
        if self.regex is not None:
            return len(path) if self.regex(path) else None
        if self.text == "/":
            return 1
        prefix = self.text.rstrip("/")
        rest = path.rstrip("/")
        if not rest.startswith(prefix) or rest[len(prefix) :][:1] not in {"", "/"}:
            return None
        return len(prefix)


EVERY_PATH: Final = Path(Kind.PREFIX, "/")


@dataclass(frozen=True, slots=True)
class HttpMatch:
    """Conditions on an HTTP request; all have to hold."""

    path: Path = EVERY_PATH
    method: str | None = None
    headers: tuple[tuple[str, Text], ...] = ()
    query: tuple[tuple[str, Text], ...] = ()

    def rank(self, seen: Seen) -> Rank | None:
        """Return how well a request matches, None where it does not."""
        if self.method is not None and seen.method != self.method:
            return None
        length = self.path.length(seen.path)
        if length is None or not _have(self.headers, seen.headers):
            return None
        for name, text in self.query:
            if not any(key == name and text.fits(value) for key, value in seen.query):
                return None
        return (length, len(self.headers), len(self.query), int(self.method is not None))


@dataclass(frozen=True, slots=True)
class GrpcMatch:
    """Conditions on a call of gRPC: a POST of ``/service/method``; what follows a third slash does not count."""

    service: str = ""
    method: str = ""
    headers: tuple[tuple[str, Text], ...] = ()

    def rank(self, seen: Seen) -> Rank | None:
        """Return how well a call matches, None where it does not."""
        parts = seen.path.split("/")
        if seen.method != "POST" or len(parts) < 3 or parts[0]:  # noqa: PLR2004  # nothing, service, method
            return None
        if self.service not in {"", parts[1]} or self.method not in {"", parts[2]}:
            return None
        if not _have(self.headers, seen.headers):
            return None
        return (len(self.service), len(self.method), len(self.headers))


@dataclass(frozen=True, slots=True)
class AnyCall:
    """A rule of a GRPCRoute without matches: every request, of whatever form."""

    def rank(self, seen: Seen) -> Rank | None:  # noqa: ARG002  # nothing of it counts
        """Return the least rank."""
        return (0, 0, 0)


def _have(wanted: tuple[tuple[str, Text], ...], headers: Mapping[str, tuple[str, ...]]) -> bool:
    return all(any(text.fits(value) for value in headers.get(name, ())) for name, text in wanted)


Match = HttpMatch | GrpcMatch | AnyCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route: hosts (none: any), and rules, each a list of matches of which any may hold."""

    name: str
    hosts: tuple[str, ...]
    rules: tuple[tuple[Match, ...], ...]

    def rank(self, seen: Seen) -> tuple[Rank, Rank] | None:
        """Return how well a request matches, by host and by the rest, None where it does not."""
        host: Rank = ()
        if self.hosts:
            found = [rank for one in self.hosts if (rank := host_rank(one, seen.host)) is not None]
            if not found:
                return None
            host = max(found)
        ranks = [rank for rule in self.rules for one in rule if (rank := one.rank(seen)) is not None]
        return (host, max(ranks)) if ranks else None


def host_rank(pattern: str, host: str) -> Rank | None:
    """Return how well a host fits a name or a ``*.`` pattern: whole names are better than patterns."""
    wanted, asked = pattern.lower(), host.lower()
    if not wanted.endswith("."):
        asked = asked.removesuffix(".")
    if wanted.startswith("*."):
        return (0, len(wanted) - 1) if asked.endswith(wanted[1:]) else None
    return (1, len(wanted)) if asked == wanted else None


def best(routes: Sequence[tuple[Route, T]], seen: Seen) -> tuple[Route, T] | None:
    """Return the route of a request with what goes with it, None where none matches; among equals the first."""
    found: tuple[tuple[Rank, Rank], tuple[Route, T]] | None = None
    for one in routes:
        rank = one[0].rank(seen)
        if rank is not None and (found is None or rank > found[0]):
            found = (rank, one)
    return None if found is None else found[1]
