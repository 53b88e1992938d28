# SPDX-License-Identifier: Apache-2.0
"""Claim: every kind of attack is found within its episode, at few false alarms, which a fixed threshold does not give.

A seeded month of traffic (see detector_month.py) with labelled attacks goes through all detectors as records do in the
server.  The peer, in the same run, is what one writes first: a fixed threshold or rule for each question.  An alarm is
right when its evidence holds a record of an attack; informational findings are no alarms.  False alarms are given per day
and per 1,000 subject-days, over the days after the learning periods.
"""

import argparse
import platform
import sys
import time
from collections import Counter, defaultdict
from datetime import UTC, timedelta
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.detector_month import DAYS, QUIET_DAYS, make_month

from everyhop.anomaly import Severity, observe
from everyhop.anomaly.detectors import Locations, ServiceCanary, default_detectors
from everyhop.anomaly.finding import Action

NAMES = (
    "new-edge",
    "denied-burst",
    "probing",
    "credential-stuffing",
    "password-spray",
    "token-replay",
    "impossible-travel",
    "unusual-hour",
    "volume",
    "canary",
)
MAX_FALSE_A_DAY = 2.0
LEAST_RECALL = 0.85


class Opened:
    """The policy's changes of the month."""

    def __init__(self, month):
        self._opened = month.opened

    def opened(self, caller, target, operation):
        """Return when an edge was opened."""
        return self._opened.get((caller, target, operation))


class Vaults:
    """The one service that is a canary."""

    def find(self, service):
        """Return it."""
        return ServiceCanary("c-vault", Action.QUARANTINE) if service == "vault-backup" else None


class Naive:
    """Fixed rules, one for each question, as they are written first.  Yields names; tumbling windows of five minutes."""

    def __init__(self, locations):
        self._locations = locations
        self._edges = set()
        self._counts = defaultdict(Counter)
        self._accounts = defaultdict(set)
        self._last = {}

    def look(self, o):
        """Return the names of the alarms of one observation."""
        at = o.time.timestamp()
        five, hour = int(at // 300), int(at // 3600)
        who = str(o.subjects[0]) if o.subjects else None
        found = []
        if o.outcome == "allowed":
            edge = o.caller, o.target, o.operation
            if o.point == "ingress" and edge not in self._edges:
                self._edges.add(edge)
                found.append("new-edge")
            if o.is_call and who and self._count("volume", who, hour) == 300:
                found.append("volume")
            if o.user and not 6 <= o.time.hour < 19 and self._count("hour", o.user, int(at // 86400)) == 1:
                found.append("unusual-hour")
            place = self._locations.find(o.address) if o.address and o.user else None
            if place is not None and self._last.setdefault(o.user, place) != place:
                self._last[o.user] = place
                found.append("impossible-travel")
            token = o.detail.get("presented")
            if token and self._last.setdefault(token, o.address) != o.address:
                self._last[token] = o.address
                found.append("token-replay")
        if o.outcome != "allowed" and who and self._count("denied", who, five) == 5:
            found.append("denied-burst")
        if o.outcome != "allowed" and who and self._count("probing", who, five) == 15:
            found.append("probing")
        if o.outcome == "failed":
            if o.reason in {"TOKEN_REPLAYED", "BINDING_MISMATCH", "TOKEN_REVOKED"}:
                found.append("token-replay")
            if o.kind == "token" and o.address:
                if self._count("failed", o.address, five) == 10:
                    found.append("credential-stuffing")
                accounts = self._accounts[hour]
                accounts.add(o.user or o.api_key)
                if len(accounts) == 10 and self._count("spray", "", hour) == 1:
                    found.append("password-spray")
        return found

    def _count(self, what, who, window):
        counts = self._counts[what]
        counts[who, window] += 1
        return counts[who, window]


def judge(month, alarms):
    """Return, per detector, what was right, wrong and missed; alarms are (name, time, evidence)."""
    attack_of = {record: attack for attack in month.attacks for record in attack.records}
    right, wrong, found, delays, seen = (
        Counter(),
        Counter(),
        defaultdict(set),
        defaultdict(list),
        defaultdict(list),
    )
    order = {record.id: n for n, record in enumerate(month.records)}
    first_day = month.records[0].time + timedelta(days=QUIET_DAYS)
    for name, at, evidence in alarms:
        hits = {attack_of[record] for record in evidence if record in attack_of}
        if not hits:
            wrong[name] += at >= first_day
            continue
        right[name] += 1
        for attack in hits:
            if name in attack.detectors and attack not in found[name]:
                found[name].add(attack)
                delays[name].append((at - attack.began).total_seconds())
                seen[name].append(sum(order[record] <= order[evidence[-1]] for record in attack.records))
    wanted = Counter(name for attack in month.attacks for name in attack.detectors)
    return {
        name: {
            "right": right[name],
            "wrong": wrong[name],
            "found": len(found[name]),
            "wanted": wanted[name],
            "delay": median(delays[name]) if delays[name] else None,
            "after": median(seen[name]) if seen[name] else None,
        }
        for name in NAMES
    }


def run(month):
    """Return the alarms of the detectors and of the naive rules, and the seconds that the detectors took."""
    locations = Locations.parse(month.locations)
    detectors = default_detectors(opened=Opened(month), services=Vaults(), locations=locations)
    naive, alarms, plain, spent = Naive(locations), [], [], 0.0
    count = 0
    for record in month.records:
        o = observe(record)
        if o is None:
            continue
        began = time.perf_counter()
        for detector in detectors:
            alarms += [
                (f.detector, f.last, f.evidence)
                for f in detector.observe(o, o.time)
                if f.severity is not Severity.INFORMATIONAL
            ]
        spent += time.perf_counter() - began
        count += 1
        plain += [(name, o.time.astimezone(UTC), (o.record,)) for name in naive.look(o)]
    return alarms, plain, spent, count, detectors


def show(title, judged, subject_days):
    """Print one table."""
    print(f"\n{title}")
    print(
        f"{'detector':<20} {'recall':>8} {'precision':>9} {'delay':>9} {'records':>8} {'false/day':>9} {'/1000 sd':>9}"
    )
    days = DAYS - QUIET_DAYS
    for name, j in judged.items():
        total = j["right"] + j["wrong"]
        precision = f"{j['right'] / total:.2f}" if total else "-"
        delay = "-" if j["delay"] is None else f"{j['delay']:.0f} s"
        after = "-" if j["after"] is None else f"{j['after']:.0f}"
        print(
            f"{name:<20} {j['found']:>3} of {j['wanted']:<2} {precision:>8} {delay:>9} {after:>8}"
            f" {j['wrong'] / days:>9.2f} {1000 * j['wrong'] / subject_days:>9.2f}"
        )


def main(arguments=None):
    """Measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--details", action="store_true", help="print every false alarm")
    options = parser.parse_args(arguments)
    month = make_month(options.seed, scale=options.scale)
    alarms, plain, spent, count, detectors = run(month)
    subject_days = month.subjects * (DAYS - QUIET_DAYS)
    print(
        f"{platform.python_version()}, seed {options.seed}, {len(month.records)} records, {len(month.attacks)} attacks,"
    )
    print(f"{month.subjects} subjects, {DAYS} days of which {DAYS - QUIET_DAYS} are judged")
    ours, theirs = judge(month, alarms), judge(month, plain)
    show("everyhop", ours, subject_days)
    show("fixed thresholds", theirs, subject_days)
    state = sum(len(v) for d in detectors for v in d.state().values())
    print(f"\n{1e6 * spent / count:.1f} us an observation for all detectors, {state / 1024:.0f} KiB of state")
    wrong = sum(j["wrong"] for j in ours.values()) / (DAYS - QUIET_DAYS)
    other = sum(j["wrong"] for j in theirs.values()) / (DAYS - QUIET_DAYS)
    found, other_found = (
        sum(j["found"] for name, j in all_of.items() if name != "canary")
        / sum(j["wanted"] for name, j in all_of.items() if name != "canary")
        for all_of in (ours, theirs)
    )
    print(
        f"without canaries, for which the peer has no rule: recall {found:.2f} against {other_found:.2f}; false alarms {wrong:.2f} a day against {other:.2f}"
    )
    print(
        f"(bars: recall of each at least {LEAST_RECALL}, at most {MAX_FALSE_A_DAY} false alarms a day in all)"
    )
    if options.details:
        attacked = {record for attack in month.attacks for record in attack.records}
        for name, at, evidence in alarms:
            if not attacked & set(evidence):
                print(name, at, evidence[-1])
    recalls = [j["found"] / j["wanted"] for j in ours.values() if j["wanted"]]
    return 0 if min(recalls) >= LEAST_RECALL and wrong <= MAX_FALSE_A_DAY else 1


if __name__ == "__main__":
    sys.exit(main())
