# SPDX-License-Identifier: Apache-2.0
"""What a policy may say about detectors, and which of them are on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from everyhop.anomaly.detectors import DetectorSettings, Locations, default_detectors, read_settings, silent
from everyhop.anomaly.detectors.settings import KINDS
from everyhop.core.errors import InputError


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"volumes": "off"}, "no detector 'volumes'"),
        ({"volume": "loud"}, "neither on, off nor a mapping"),
        ({"volume": {"spread": 3}}, "nothing called 'spread'"),
        ({"volume": {"spreads": 0}}, "more than nothing"),
        ({"volume": {"spreads": "many"}}, "expected a number"),
        ({"volume": {"least": 2.5}}, "whole number"),
        ({"volume": {"least": True}}, "whole number"),
        ({"volume": {"spreads": float("nan")}}, "more than nothing"),
        ({"denied-burst": {"window": 300}}, "a duration such as 5m"),
        ({"denied-burst": {"window": "0s"}}, "more than nothing"),
        ({"denied-burst": {"window": "5 min"}}, "not a duration"),
        ({"impossible-travel": {"locations": 5}}, "expected a text"),
    ],
)
def test_a_wish_that_cannot_be_is_refused(wishes, words):
    with pytest.raises(InputError, match=words):
        read_settings(wishes)


def test_nothing_said_is_the_defaults():
    assert read_settings({}) == DetectorSettings()


def test_knobs_are_read_as_what_they_are():
    wishes = {
        "denied-burst": {"denials": 5, "window": "1m"},
        "volume": {"spreads": 8, "least": "100"},
        "impossible-travel": {"locations": "networks.csv", "least-km": 300.5},
        "unusual-hour": "off",
        "new-edge": False,
        "canary": "on",
        "token-replay": True,
    }
    found = read_settings(wishes)
    assert (found.denied_burst.denials, found.denied_burst.window) == (5, timedelta(minutes=1))
    assert (found.volume.spreads, found.volume.least) == (8.0, 100)
    assert found.impossible_travel.least_km == 300.5
    assert found.unusual_hour is found.new_edge is None
    assert found.canary is not None


def test_each_kind_has_a_place_in_the_settings():
    assert {name.replace("-", "_") for name in KINDS} == set(DetectorSettings.__dataclass_fields__)


def test_travel_is_off_without_a_table_and_says_so():
    names = {detector.name for detector in default_detectors()}
    assert names == set(KINDS) - {"impossible-travel"}
    assert list(silent(DetectorSettings(), has_locations=False)) == ["impossible-travel"]
    table = Locations.parse(b"network,latitude,longitude\n")
    assert {d.name for d in default_detectors(locations=table)} == set(KINDS)


def test_all_can_be_off():
    settings = read_settings(dict.fromkeys(KINDS, "off"))
    assert default_detectors(settings) == ()
    assert set(silent(settings, has_locations=False)) == set(KINDS)
