# SPDX-License-Identifier: Apache-2.0
"""Impossible travel, and the table of locations."""

from __future__ import annotations

import pytest
from tests.unit.anomaly.detectors.acts import at_edge, feed, feed_with_restarts, later

from everyhop.anomaly import Severity
from everyhop.anomaly.detectors import ImpossibleTravel, Locations
from everyhop.anomaly.detectors.locations import distance_km
from everyhop.anomaly.detectors.settings import ImpossibleTravel as Settings
from everyhop.core.errors import InputError

BERLIN, PARIS, SYDNEY, MUNICH = "198.51.100.7", "203.0.113.7", "192.0.2.7", "198.51.100.200"
TABLE = b"""network,latitude,longitude
198.51.100.0/24,52.5,13.4
198.51.100.192/26,48.1,11.6
203.0.113.0/24,48.9,2.4
192.0.2.0/24,-33.9,151.2
2001:db8::/32,35.7,139.7
2001:db8:1::/48,52.5,13.4
"""


def make():
    return ImpossibleTravel(Settings(), Locations.parse(TABLE))


def route(*stops):
    return [at_edge(later(hours=hours), host=host, user="alice") for hours, host in stops]


def test_far_apart_in_too_little_time_is_found():
    seen = route((0, BERLIN), (1, BERLIN), (2, SYDNEY))
    (found,) = feed(make(), seen)
    assert (found.detector, found.severity, str(found.subject)) == (
        "impossible-travel",
        Severity.HIGH,
        "user:alice",
    )
    assert found.evidence == (seen[1].record, seen[2].record)
    assert found.observed == pytest.approx(distance_km((52.5, 13.4), (-33.9, 151.2)), abs=1)


@pytest.mark.parametrize(
    "stops",
    [
        ((0, BERLIN), (20, SYDNEY)),  # a flight
        ((0, BERLIN), (0.5, MUNICH), (2, BERLIN), (2.5, "10.0.0.1")),  # half an hour is too fast, see below
        ((0, BERLIN), (0, "198.51.100.8")),
        ((0, BERLIN), (1, "10.0.0.1"), (2, "not an address")),
    ],
    ids=["flight", "train", "same city", "nowhere"],
)
def test_what_can_be_is_nothing(stops):
    if stops[1][1] == MUNICH:
        stops = ((0, BERLIN), (0.6, MUNICH), (2, BERLIN))
    assert feed(make(), route(*stops)) == []


def test_a_pair_of_places_is_told_once_in_thirty_days():
    stops = [(hour, (BERLIN, SYDNEY)[hour % 2]) for hour in range(48)]
    assert len(feed(make(), route(*stops))) == 1
    assert len(feed(make(), route(*stops, (24 * 40, BERLIN), (24 * 40 + 1, SYDNEY)))) == 2


def test_refused_calls_and_calls_without_user_prove_no_place():
    seen = [
        *route((0, BERLIN)),
        at_edge(later(hours=1), host=SYDNEY, user="alice", reason="user-not-permitted"),
    ]
    assert feed(make(), [*seen, at_edge(later(hours=1), host=SYDNEY)]) == []


def test_records_out_of_order_are_compared_as_well():
    (found,) = feed(make(), route((5, BERLIN), (4, SYDNEY)))
    assert found.first < found.last


def test_restarts_lose_nothing():
    assert len(feed_with_restarts(make, route((0, BERLIN), (1, SYDNEY)))) == 1


def test_the_most_specific_network_says_where():
    table = Locations.parse(TABLE)
    assert len(table) == 6
    assert table.find(MUNICH) == (48.1, 11.6)
    assert table.find(BERLIN) == (52.5, 13.4)
    assert table.find("2001:db8:1::5") == (52.5, 13.4)
    assert table.find("2001:db8:1:2::/64") == (52.5, 13.4)  # as addresses are counted
    assert table.find("2001:db8:2::5") == (35.7, 139.7)
    assert table.find("::ffff:198.51.100.7") == (52.5, 13.4)
    assert table.find("10.0.0.1") is table.find("") is table.find("x") is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "begins with"),
        (b"net,lat,lon\n", "begins with"),
        (b"network,latitude,longitude\n10.0.0.1/8,1,1\n", "line 2: not a network"),
        (b"network,latitude,longitude\n10.0.0.0/8,1\n", "line 2: expected three"),
        (b"network,latitude,longitude\n10.0.0.0/8,91,1\n", "between -90 and 90"),
        (b"network,latitude,longitude\n10.0.0.0/8,1,-180.5\n", "between -180 and 180"),
        (b"network,latitude,longitude\n10.0.0.0/8,nan,1\n", "between"),
        (b"network,latitude,longitude\n10.0.0.0/8,1_0,1\n", "between"),
        (b"network,latitude,longitude\n10.0.0.0/8,,1\n", "between"),
        (
            b"network,latitude,longitude\n10.0.0.0/8,1,1\n10.0.0.0/8,2,2\n",
            "line 3: 10.0.0.0/8 is there twice",
        ),
        (b"network,latitude,longitude\n\xff,1,1\n", "UTF-8"),
        (b'network,latitude,longitude\n"10.0.0.0/8,1,1\n', "not CSV"),
    ],
)
def test_a_table_with_a_mistake_is_refused(data, words):
    with pytest.raises(InputError, match=words):
        Locations.parse(data)


def test_distances():
    assert distance_km((0, 0), (0, 180)) == pytest.approx(20015, abs=1)
    assert distance_km((52.5, 13.4), (48.9, 2.4)) == pytest.approx(875, abs=10)
    assert distance_km((1, 1), (1, 1)) == 0
