# SPDX-License-Identifier: Apache-2.0
"""A benchmark compares answers before it compares times: a peer that is fast because it is wrong has no figures."""

from __future__ import annotations

import json

import pytest
from benchmarks import bench_authorization as bench
from benchmarks.authorization_cases import GRANTS, SUITES, case_of, expanded
from benchmarks.authorization_engines import ENGINES, AbsentError, scan


def questions_of(case, make):
    prepare, ask = make(case)
    return [(prepare(request), request.expected) for request in case.requests], ask


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("answer", [True, False, 1, "yes", None], ids=repr)
def test_an_engine_that_answers_without_looking_has_no_figures(suite, answer):
    questions, _ = questions_of(case_of(suite, 10), scan)
    with pytest.raises(bench.WrongAnswerError):
        bench.measure(lambda _: answer, questions, rounds=1)


@pytest.mark.parametrize("suite", SUITES)
def test_one_wrong_answer_among_all_is_noticed(suite):
    questions, ask = questions_of(case_of(suite, 100), scan)
    last = questions[-1][0]
    with pytest.raises(bench.WrongAnswerError):
        bench.measure(lambda q: ask(q) is not (q is last), questions, rounds=1, seconds=60)


def test_a_wrong_engine_ends_the_run_of_all(monkeypatch, capsys):
    def wrong(case):
        return lambda request: request, lambda _: True

    monkeypatch.setitem(ENGINES, "wrong", wrong)
    with pytest.raises(bench.WrongAnswerError):
        bench.main(["--one", "wrong", "edges", "10"])
    assert not capsys.readouterr().out


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("suite", SUITES)
def test_each_engine_answers_every_request_rightly(name, suite):
    case = case_of(suite, 40)
    try:
        questions, ask = questions_of(case, ENGINES[name])
    except AbsentError as error:
        pytest.skip(str(error))
    bench.measure(ask, questions[:100], rounds=1, seconds=60)


@pytest.mark.parametrize("suite", SUITES)
def test_a_case_is_the_same_in_every_process_and_half_allowed(suite):
    case = case_of(suite, 100)
    assert case == case_of(suite, 100)
    assert sum(request.expected for request in case.requests) * 2 == len(case.requests)


def test_roles_are_as_many_as_the_page_says():
    case = case_of("roles", 0)
    assert (len(case.grants), sum(map(len, case.grants.values())), len(case.users)) == (100, GRANTS, 500)
    assert len(expanded(case)["role0"]) > len(case.grants["role0"])


def test_what_misses_its_bar_is_named():
    found = {
        ("edges", 10): {"everyhop": {"p50": 9.0, "quiet": 2.0}},
        ("edges", 1_000): {
            "everyhop": {"p50": 6.0, "quiet": 6.0},
            "cedarpy": {"p50": 59.0},
            "regopy": {"p50": 61.0},
        },
    }
    assert bench.judge(found, {"edges": {10: 2.0, 1_000: 6.0}}) == [
        "edges: p50 at 1,000 rules is 6.00 µs, the bar is 5.0 µs",
        "edges: 3.00 x over all sizes, the bar is 1.5 x",
        "edges: less than 10 x faster than cedarpy",
    ]


def test_a_peer_that_is_faster_is_called_the_winner():
    line = bench.line_of("scan", {"p50": 1.0, "p99": 2.0, "load": 0, "memory": 0}, {"p50": 2.0})
    assert line.endswith("WINS")
    assert "WINS" not in bench.line_of("scan", {"p50": 3.0, "p99": 2.0, "load": 0, "memory": 0}, {"p50": 2.0})


def test_figures_travel_as_json(capsys):
    assert bench.main(["--one", "scan", "edges", "10"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) >= {"p50", "p99", "quiet", "load", "memory", "passes"}
