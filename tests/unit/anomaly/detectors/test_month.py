# SPDX-License-Identifier: Apache-2.0
"""A month with labelled attacks: each kind is found, and a month without any is nearly silent."""

from __future__ import annotations

from collections import Counter

import pytest
from benchmarks import bench_detectors as bench
from benchmarks.detector_month import DAYS, QUIET_DAYS, make_month


@pytest.fixture(scope="module")
def attacked():
    month = make_month(11, scale=0.4, people=60)
    alarms, plain, *_ = bench.run(month)
    return bench.judge(month, alarms), bench.judge(month, plain)


@pytest.mark.parametrize("name", bench.NAMES)
def test_attacks_are_found(attacked, name):
    judged = attacked[0][name]
    assert judged["wanted"] >= 6
    assert judged["found"] / judged["wanted"] >= bench.LEAST_RECALL


def test_fixed_thresholds_are_no_match(attacked):
    ours, theirs = ({name: j["wrong"] for name, j in of.items()} for of in attacked)
    assert 10 * sum(ours.values()) < sum(theirs.values())


def test_a_month_without_attacks_is_nearly_silent():
    month = make_month(12, scale=0.4, people=60, attacks=False)
    alarms, *_ = bench.run(month)
    wrong = Counter({name: j["wrong"] for name, j in bench.judge(month, alarms).items()})
    days = DAYS - QUIET_DAYS
    assert sum(wrong.values()) <= bench.MAX_FALSE_A_DAY * days
    quiet = {"probing", "credential-stuffing", "password-spray", "impossible-travel", "canary"}
    assert {name: wrong[name] for name in quiet} == dict.fromkeys(quiet, 0)
    assert sum(wrong[name] for name in ("new-edge", "denied-burst", "token-replay", "volume")) <= 6


def test_a_month_is_the_same_for_the_same_seed():
    one, two, other = (make_month(seed, scale=0.05, people=3) for seed in (1, 1, 2))
    assert one.records == two.records
    assert one.records != other.records
