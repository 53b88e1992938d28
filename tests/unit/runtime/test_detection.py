# SPDX-License-Identifier: Apache-2.0
"""Detection as the settings and the policy compose it."""

from __future__ import annotations

import pytest
from tests.support.detecting import snapshot_with

from everyhop.anomaly.twin import TwinWindows
from everyhop.anomaly.window import Hit, MemoryWindows, Threshold
from everyhop.core.errors import SettingsError
from everyhop.runtime.detection import detectors_of, windows_of
from everyhop.runtime.settings import Settings

NOWHERE = "unix:///nonexistent/redis.sock"
HITS = [Hit("s", Threshold(300.0, 2, None))] * 3


def test_without_an_address_of_redis_counters_are_here():
    assert isinstance(windows_of(Settings(), snapshot_with, lambda _: None), MemoryWindows)


@pytest.mark.parametrize(("on_error", "expected"), [("local", [1, 2, 3]), ("allow", [0, 0, 0])])
def test_a_redis_that_is_away_is_told_once_and_the_policy_says_what_then(on_error, expected):
    told = []
    snapshot = snapshot_with(f"{{on_error: {on_error}}}")
    windows = windows_of(Settings(redis_url=NOWHERE), lambda: snapshot, told.append)
    assert isinstance(windows, TwinWindows)
    assert [count.n for hit in HITS for count in windows.count([hit], now=1.0)] == expected
    assert told == [True]


def test_an_address_that_does_not_parse_is_refused_without_being_repeated():
    with pytest.raises(SettingsError) as caught:
        windows_of(Settings(redis_url="redis://user:hush@host:port/"), snapshot_with, lambda _: None)
    assert "hush" not in str(caught.value)


def names(detect):
    return {detector.name for detector in detectors_of(snapshot_with(detect), None, None)}


def test_detectors_are_those_that_the_policy_wishes_for():
    every = names(None)
    assert {"canary", "new-edge", "volume"} <= every
    assert every - names("{detectors: {volume: off}}") == {"volume"}


def test_a_table_of_locations_that_is_not_there_leaves_its_detector_out_loudly(tmp_path, caplog):
    missing = tmp_path / "nowhere.csv"
    assert "impossible-travel" not in names(f"{{detectors: {{impossible-travel: {{locations: {missing}}}}}}}")
    assert "cannot be read" in caplog.text
    table = tmp_path / "table.csv"
    table.write_text("network,latitude,longitude\n203.0.113.0/24,52.5,13.4\n", encoding="utf-8")
    assert "impossible-travel" in names(f"{{detectors: {{impossible-travel: {{locations: {table}}}}}}}")
