# SPDX-License-Identifier: Apache-2.0
"""Every attempt of the table at every enforcement point: refused alike, never served, and recorded."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.bypass_points import points
from tests.support.bypass_report import compare, table
from tests.support.leftovers import collect_leftovers
from tests.vectors.bypass_attempts import ATTEMPTS, ELSEWHERE, GRPC, PLAIN, SOURCES

POINTS = points()
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "bypasses.md"
PARSER_REFUSALS = {0, 400, 404, 405, 426, 431, 501, 505}
SWITCHING = 101
OF_GRPC_CORE = {14, 19}  # no path, a method that gRPC has not: it answers UNKNOWN or INTERNAL by itself
ANSWERS = {}


@pytest.fixture(scope="module")
def started():
    """Points that were started, by name; one at a time, all ended at the end of the module."""
    running = {}

    def start(name):
        for other in [found for found in running if found != name]:
            running.pop(other).__exit__(None, None, None)
        if name not in running:
            running[name] = POINTS[name].__enter__()
        return running[name]

    yield start
    for point in running.values():
        point.__exit__(None, None, None)
    collect_leftovers()


def is_for(attempt, point):
    """Tell whether an attempt can be made at a point."""
    return (
        point.wire in attempt.on
        and (not attempt.state or attempt.state in point.states)
        and (point.checks_body or not attempt.checks_body)
        and (point.takes_websockets or (b"Upgrade", b"websocket") not in attempt.headers)
    )


def flaws(attempt, point, seen):
    """Return what is wrong with what came of an attempt, and how its cell in the page reads."""
    answer = (seen.status, seen.code)
    if point.wire == GRPC and seen.status == 500 and attempt.number in OF_GRPC_CORE and not seen.recorded:
        return ([f"it reached the application: {seen.reached}"] if seen.reached else []), "by the server"
    if seen.status in {500, 502, 503, 504} and answer not in attempt.expect:
        return [f"{answer}: an error"], ""
    if seen.status == SWITCHING and not seen.reached and seen.recorded and not seen.recorded[0][0]:
        return [], "101 by the server, then 403"
    if seen.status in {200, SWITCHING} or seen.reached:
        return served(attempt, seen), "served as without"
    found = []
    if attempt.method == b"HEAD" and seen.recorded:  # its answer has no body, so no code
        answer = next(one for one in attempt.expect if one[0] == seen.status)
        seen = replace(seen, code=answer[1])
    if answer in attempt.expect and answer != PLAIN and seen.code:
        if len(seen.recorded) != 1 or seen.recorded[0][0]:
            found.append(f"{answer}: no record of a refusal, but {seen.recorded}")
        return found, f"{seen.status} {seen.code}"
    if point.wire == GRPC and answer[0] in {status for status, _ in attempt.expect} and seen.recorded:
        return found, f"{seen.status}"
    # The server itself would not have it: whoever decides was never asked.
    if seen.status in PARSER_REFUSALS and not seen.code and not any(one[0] for one in seen.recorded):
        return found, "no answer" if not seen.status else f"{seen.status} by the server"
    return [f"{answer} and {seen.recorded}, and right would be {attempt.expect}"], ""


def served(attempt, seen):
    """Return what is wrong with an attempt that reached the application."""
    if PLAIN not in attempt.expect:
        return [f"it reached the application: {seen.reached}"]
    if len(seen.reached) != 1:
        return [f"{len(seen.reached)} requests reached the application"]
    method, target, headers = seen.reached[0]
    found = []
    if (method, target.partition(b"?")[0]) != (
        attempt.method.decode().upper(),
        attempt.target.partition(b"?")[0],
    ):
        found.append(f"another request reached the application: {method} {target}")
    forged = {(name.lower().replace(b"_", b"-"), value) for name, value in attempt.headers}
    for name, value in headers:
        if name in attempt.hidden and (name.replace(b"_", b"-"), value) in forged:
            found.append(f"the application sees {name}: {value}")
    if len(seen.recorded) != 1 or not seen.recorded[0][0]:
        found.append(f"no record of what was allowed, but {seen.recorded}")
    return found


@pytest.mark.parametrize("number", sorted(SOURCES))
@pytest.mark.parametrize("name", POINTS)
def test_an_attempt_at_a_point(started, name, number):
    chosen = [one for one in ATTEMPTS if one.number == number and is_for(one, POINTS[name])]
    if not chosen:
        ANSWERS.setdefault((name, number), {})
        return
    point = started(name)
    wrong = []
    for attempt in chosen:
        found, cell = flaws(attempt, point, point.send(attempt))
        ANSWERS.setdefault((name, number), {})[attempt.id] = cell
        wrong += [f"{attempt.id}: {flaw}" for flaw in found]
    assert not wrong, "\n".join(wrong)


def test_every_number_is_tried_or_told():
    assert {one.number for one in ATTEMPTS} | ELSEWHERE.keys() == SOURCES.keys() == set(range(1, 38))
    assert not {one.number for one in ATTEMPTS} & ELSEWHERE.keys()
    ids = [one.id for one in ATTEMPTS]
    assert len(set(ids)) == len(ids)


def test_the_page_tells_what_every_point_answered():
    if len(ANSWERS) < len(POINTS) * len(SOURCES):
        pytest.skip("only some attempts were made")
    compare(PAGE, table(ANSWERS))
