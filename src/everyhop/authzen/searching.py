# SPDX-License-Identifier: Apache-2.0
"""Search (section 8): every candidate is put the question that an evaluation would be put.

So what is found is what an evaluation permits, and nothing is guessed from the form of the policy.  An answer that is
not complete always says so, by a ``next_token``; that is kept when the walk was cut for its cost alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.authzen.model import Json, Kind, Search
from everyhop.authzen.paging import PageTokens, Place
from everyhop.authzen.parse import parse_search

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from everyhop.authzen.ports import DecisionPoint

MAX_RESULTS: Final = 1000
MAX_ASKED: Final = 2000  # about a quarter of a second of CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The most that one answer costs: results in it, and candidates that are asked about for it."""

    results: int = MAX_RESULTS
    asked: int = MAX_ASKED


def answer_search(
    point: DecisionPoint,
    kind: Kind,
    body: bytes,
    *,
    tokens: PageTokens,
    now: datetime,
    bounds: Bounds | None = None,
) -> Json:
    """Answer a search; raises InputError for a request, or a page token, that is not good."""
    search = parse_search(kind, body)
    bounds = bounds or Bounds()
    snapshot, asker = point.snapshot, point.asker
    place = Place(
        position=0, limit=None if search.page is None else search.page.limit, begun_at=int(now.timestamp())
    )
    if search.page is not None and search.page.token is not None:
        place = tokens.open(search.page.token, search, asker=asker, snapshot=snapshot, now=now)
    candidates = point.candidates(search)
    context: Json = {"snapshot": snapshot}
    if candidates is None:
        candidates = ()
        context["reason"] = "unknown-type"
    found, following = _walk(point, search, candidates, place, bounds)
    answer: Json = {}
    if search.page is not None or following is not None:
        token = ""
        if following is not None:
            onward = Place(position=following, limit=place.limit, begun_at=place.begun_at)
            token = tokens.seal(onward, search, asker=asker, snapshot=snapshot)
        answer["page"] = {"next_token": token, "count": len(found)}
    return {**answer, "context": context, "results": [search.result(name) for name in found]}


def _walk(
    point: DecisionPoint, search: Search, candidates: Sequence[str], place: Place, bounds: Bounds
) -> tuple[list[str], int | None]:
    """Return one page, and where the next one begins: None when certainly nothing is left."""
    most = bounds.results if place.limit is None else min(place.limit, bounds.results)
    found: list[str] = []
    last = min(len(candidates), place.position + bounds.asked)
    for index in range(place.position, last):
        if point.permits(search.candidate(candidates[index])) is True:
            if len(found) >= most:
                return found, index
            found.append(candidates[index])
    return found, last if last < len(candidates) else None
