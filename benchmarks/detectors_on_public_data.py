# SPDX-License-Identifier: Apache-2.0
"""Run the volume and the denied detectors over public labelled data, which is not part of this repository.

    python benchmarks/detectors_on_public_data.py --nab NAB --ssh OpenSSH_2k.log

``NAB`` is a checkout of numenta/NAB: of its series those are taken that are counts of events (tweets, requests, taxi
rides), and its labelled windows are the truth.  ``OpenSSH_2k.log`` is of logpai/loghub; it has no labels, so the truth is
counted: addresses with at least five failed passwords within five minutes.  Peers in the same run: a threshold that is
fixed at the mean of the first week plus three standard deviations, and ten failures in a tumbling window.
"""

import argparse
import csv
import json
import re
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import fmean, pstdev

from everyhop.anomaly import observe
from everyhop.anomaly.detectors import DeniedBurst, VolumeDetector
from everyhop.anomaly.detectors.settings import DeniedBurst as BurstSettings, Volume
from everyhop.anomaly.detectors.volume import QUIET_HOURS, Series
from everyhop.auditlog import Kind, Point, Record

COUNTS = ("realTweets/Twitter_volume_", "realAWSCloudwatch/elb_request_count", "realKnownCause/nyc_taxi")
_FAILED = re.compile(r"(\w+ +\d+ [\d:]+) .*Failed password for (?:invalid user )?(.*) from ([\d.]+) port")


def moment(text):
    """Return seconds since 1970; the data has no zone."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def alarms_of(rows, settings):
    """Return the hours in which the volume detector speaks, told once an episode as it does."""
    detector, series, found, last = VolumeDetector(settings), Series(), [], -QUIET_HOURS - 1
    for at, value in rows:
        hour = int(at // 3600)
        series.advance(hour)
        series.count += round(value)
        limit = detector.threshold(series)
        if limit is not None and series.count > limit[0]:
            if hour - last > QUIET_HOURS:
                found.append(at)
            last = hour
    return found


def naive_of(rows):
    """Return the same for a threshold that is fixed after the first week."""
    hours = defaultdict(float)
    for at, value in rows:
        hours[int(at // 3600)] += value
    first = min(hours)
    learned = [v for h, v in hours.items() if h < first + 168]
    limit, found, last = fmean(learned) + 3 * pstdev(learned), [], -QUIET_HOURS - 1
    for hour, value in sorted(hours.items()):
        if hour >= first + 168 and value > limit:
            if hour - last > QUIET_HOURS:
                found.append(hour * 3600.0)
            last = hour
    return found


def nab(directory, settings):
    """Judge both on every series of counts."""
    labels = json.loads((directory / "labels" / "combined_windows.json").read_text())
    total = defaultdict(int)
    days = 0.0
    for name, windows in sorted(labels.items()):
        if not name.startswith(COUNTS):
            continue
        with (directory / "data" / name).open() as opened:
            rows = [(moment(row["timestamp"]), float(row["value"])) for row in csv.DictReader(opened)]
        judged_from = rows[0][0] + settings.learn.total_seconds()
        truth = [(moment(a), moment(b)) for a, b in windows if moment(b) > judged_from]
        days += (rows[-1][0] - judged_from) / 86400
        line = [f"{name.rpartition('/')[2]:<36} {len(truth)} windows"]
        for who, alarms in (("everyhop", alarms_of(rows, settings)), ("fixed", naive_of(rows))):
            hit = sum(any(a - 3600 <= at <= b for at in alarms) for a, b in truth)
            wrong = sum(not any(a - 3600 <= at <= b for a, b in truth) for at in alarms)
            total[who, "hit"] += hit
            total[who, "wrong"] += wrong
            line.append(f"{who} {hit} found, {wrong} false")
        total["windows"] += len(truth)
        print("  ".join(line))
    for who in ("everyhop", "fixed"):
        hit, wrong = total[who, "hit"], total[who, "wrong"]
        print(f"{who:<9} {hit} of {total['windows']} windows, {wrong / days:.3f} false alarms a series-day")


def ssh(path):
    """Judge on failed passwords."""
    tries = []
    for line in path.read_text(errors="replace").splitlines():
        found = _FAILED.match(line)
        if found:
            at = datetime.strptime(f"2017 {found[1]}", "%Y %b %d %H:%M:%S").replace(tzinfo=UTC)
            tries.append((at, found[3]))
    by_address = defaultdict(list)
    for at, address in tries:
        by_address[address].append(at)
    for least in (5, 10):
        truth = {
            address
            for address, times in by_address.items()
            for i in range(len(times) - least + 1)
            if times[i + least - 1] - times[i] < timedelta(minutes=5)
        }
        detector, found = DeniedBurst(BurstSettings(denials=least)), set()
        for number, (at, address) in enumerate(tries, 1):
            record = Record(
                id=f"r{number}",
                seq=number,
                producer="sshd",
                time=at,
                kind=Kind.DECISION,
                point=Point.EDGE,
                caller="outside",
                target="sshd",
                decision="deny",
                reason="TOKEN_INVALID",
                detail={"host": address},
            )
            found |= {
                f.subject.value for f in detector.observe(observe(record), at) if f.detector == "denied-burst"
            }
        counts = defaultdict(int)
        for at, address in tries:
            counts[address, int(at.timestamp() // 300)] += 1
        fixed = {address for (address, _), count in counts.items() if count >= least}
        print(
            f"at least {least} failures in five minutes: {len(truth)} of {len(by_address)} addresses;"
            f" everyhop finds {len(found & truth)}, {len(found - truth)} others;"
            f" tumbling windows find {len(fixed & truth)}, {len(fixed - truth)} others"
        )


def main():
    """Read what is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nab", type=Path)
    parser.add_argument("--ssh", type=Path)
    options = parser.parse_args()
    if options.nab:
        nab(options.nab, Volume())
    if options.ssh:
        ssh(options.ssh)
    return 0 if options.nab or options.ssh else 2


if __name__ == "__main__":
    sys.exit(main())
