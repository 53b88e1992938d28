# SPDX-License-Identifier: Apache-2.0
"""A month of traffic as the log holds it, with attacks whose records are known: what bench_detectors.py judges by.

Everything comes from one seed.  The month is written to be awkward in the ways real ones are: daily and weekly season that
differs by service, noise beyond counting noise, growth, a bank holiday, deploys with retries and with a version that asks
for what it may not, a monthly job that runs for the first time, a change of policy that opens edges, people with late
evenings, VPNs and flights, an office behind one address where passwords are mistyped on the same Monday, partners with an
expired key, and the background of scanners that every address on the Internet sees.
"""

import heapq
import math
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from everyhop.auditlog import Kind, Point, Record

START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
DAYS = 31
QUIET_DAYS = 15  # no attack before: what is learned until then is clean, as the learning periods assume
HOLIDAY = 22
DOMAIN = "spiffe://shop.example/service/"
SERVICES = ("web", "orders", "payments", "stock", "mail", "search", "ledger", "reports", "fraud", "media")
EDGES = (
    ("web", "orders", ("list", "create"), 26),
    ("web", "search", ("query",), 30),
    ("web", "media", ("get",), 22),
    ("orders", "payments", ("charge",), 12),
    ("orders", "stock", ("reserve", "release"), 14),
    ("orders", "mail", ("send",), 8),
    ("payments", "ledger", ("post",), 12),
    ("payments", "fraud", ("score",), 12),
    ("search", "stock", ("read",), 10),
    ("reports", "ledger", ("export",), 3),
)
CITIES = {
    "berlin": ("198.51.100", 52.5, 13.4),
    "paris": ("203.0.113", 48.9, 2.4),
    "lisbon": ("192.0.2", 38.7, -9.1),
    "newyork": ("198.18.1", 40.7, -74.0),
    "tokyo": ("198.18.2", 35.7, 139.7),
    "sydney": ("198.18.3", -33.9, 151.2),
}


@dataclass(frozen=True)
class Attack:
    """One attack: which detectors should find it, when it began, its records."""

    name: str
    detectors: frozenset
    began: datetime
    records: frozenset


@dataclass
class Month:
    """Records in the order of their time, and what is known of them."""

    records: list
    attacks: list
    subjects: int
    opened: dict = field(default_factory=dict)

    @property
    def locations(self):
        """Return the table of locations as CSV."""
        rows = [f"{prefix}.0/24,{lat},{lon}" for prefix, lat, lon in CITIES.values()]
        return ("network,latitude,longitude\n" + "\n".join(rows) + "\n").encode()


class _Maker:
    def __init__(self, seed, scale):
        self.random = random.Random(seed)
        self.scale = scale
        self.heap = []
        self.count = 0
        self.attacks = []
        self.opened = {}

    def add(self, time, **values):
        self.count += 1
        name = f"{self.count:08x}"
        heapq.heappush(self.heap, (time, self.count, values | {"id": name}))
        return name

    def call(self, time, caller, target, operation, *, reason=None, **more):
        decision = "allow" if reason is None else "deny"
        detail = more.pop("detail", {})
        point = more.pop("point", Point.INGRESS)
        return self.add(
            time,
            kind=Kind.DECISION,
            point=point,
            caller=caller if point is Point.EDGE else DOMAIN + caller,
            target=target,
            operation=operation,
            method="GET",
            path=f"/{operation}",
            decision=decision,
            reason=reason or "allowed",
            detail=detail,
            **more,
        )

    def exchange(self, time, address, account, *, fails, presented=None, key=False):
        detail = {"source": address, "api_key" if key else "user": account}
        if presented:
            detail["presented"] = presented
        if fails:
            detail |= {"code": "TOKEN_INVALID", "error": "invalid_request"}
        decision = "deny" if fails else "allow"
        return self.add(
            time,
            kind=Kind.TOKEN,
            point=Point.CONTROL,
            caller=DOMAIN + "web",
            operation="exchange",
            decision=decision,
            detail=detail,
        )

    def attack(self, name, detectors, began, records):
        self.attacks.append(Attack(name, frozenset(detectors.split()), began, frozenset(records)))

    def poisson(self, mean):
        """Return a count: exact for small means, normal for large ones."""
        if mean > 30:
            return max(0, round(self.random.gauss(mean, math.sqrt(mean))))
        limit, product, count = math.exp(-mean), 1.0, -1
        while product > limit:
            product *= self.random.random()
            count += 1
        return count


def _at(day, hour=0.0):
    return START + timedelta(days=day, hours=hour)


def _season(caller, day, hour):
    """Return the share of the base rate: each service has its own peak, and its own weekend."""
    number = SERVICES.index(caller)
    peak = 11 + number % 5
    shape = (
        0.15
        + math.exp(-(((hour - peak) / 4.5) ** 2))
        + 0.5 * math.exp(-(((hour - 20) / 2) ** 2)) * (number % 2)
    )
    is_free = (START + timedelta(days=day)).weekday() >= 5 or day == HOLIDAY
    growth = 1 + 0.04 * day / 7
    return shape * growth * (0.35 + 0.1 * (number % 3) if is_free else 1.0)


def _services(m):
    for caller, target, operations, base in EDGES:
        for day in range(DAYS):
            for hour in range(24):
                noise = math.exp(m.random.gauss(0, 0.18))
                burst = 1.8 if caller == "reports" and day == DAYS - 1 else 1.0  # the end of the month
                burst = (
                    3.0 if caller == "web" and day == 23 and hour in {11, 12} else burst
                )  # an advertisement
                mean = base * m.scale * _season(caller, day, hour) * noise * burst
                for _ in range(m.poisson(mean)):
                    at = _at(day, hour + m.random.random())
                    m.call(at, caller, target, m.random.choice(operations))
    for day in range(DAYS):  # a nightly job
        for _ in range(max(60, m.poisson(120 * m.scale))):
            m.call(_at(day, 2 + m.random.random() * 0.6), "ledger", "reports", "close")


def _changes(m):
    for number, day in enumerate((3, 8, 12, 17, 21, 24, 28)):  # deploys
        caller, target, operations, base = m.random.choice(EDGES)
        began = _at(day, 9 + m.random.random() * 7)
        for _ in range(int(base * m.scale)):  # connections and caches are cold: retries
            m.call(
                began + timedelta(seconds=m.random.random() * 600),
                caller,
                target,
                m.random.choice(operations),
            )
        for _ in range(m.random.choice((2, 4, 7))):  # the old version of a peer asks for what is gone
            at = began + timedelta(seconds=m.random.random() * 240)
            m.call(at, caller, target, None, reason="unknown-operation")
        if number == 5:  # one goes really wrong: it is refused until it is rolled back
            for step in range(40):
                m.call(began + timedelta(seconds=5 * step), caller, target, "v2", reason="no-rule")
    for day in (
        6,
        13,
        20,
        27,
    ):  # certificates are renewed; nothing is refused. A retry repeats a single-use token
        m.call(_at(day, 14), "orders", "payments", "charge", reason="TOKEN_REPLAYED") if day == 20 else None
    m.opened[DOMAIN + "search", "media", "thumb"] = _at(20, 9)
    m.opened[DOMAIN + "mail", "stock", "read"] = _at(20, 9)
    for day in range(20, DAYS):
        m.call(_at(day, 10), "search", "media", "thumb")
        m.call(_at(day, 11), "mail", "stock", "read")
    for hour in range(3):  # a monthly job that the policy has always allowed, and that was never seen
        m.call(_at(DAYS - 1, 6 + hour), "reports", "payments", "statement")


def _person(m, name, home, number):
    city = CITIES[home][0]
    own = f"{city}.{10 + number}"
    office = f"{city}.1"
    # A good third of the people work from home and from other countries' hours.
    zone = {"newyork": 5, "tokyo": -9, "sydney": -10}.get(home, -1)
    for day in range(DAYS):
        weekday = (START + timedelta(days=day)).weekday()
        is_free = weekday >= 5 or day == HOLIDAY
        if m.random.random() < (0.96 if is_free else 0.08):
            continue
        begins = m.random.gauss(8.8, 0.5)
        ends = begins + m.random.gauss(8.5, 0.8)
        if is_free:
            begins, ends = 14.0, 14.0 + m.random.random() * 2
        hours = [begins + m.random.random() * (ends - begins) for _ in range(m.poisson(7) + 2)]
        if m.random.random() < 0.03:  # a late evening
            hours.append(m.random.gauss(21, 1))
        address = office if m.random.random() < 0.5 else own
        token = f"{name}-{day}"
        for hour in sorted(hours):
            at = _at(day, hour + zone)
            if at < START:
                continue
            if m.random.random() < 0.02:
                m.exchange(at - timedelta(seconds=20), address, name, fails=True)
            if m.random.random() < 0.3:
                m.exchange(at, address, name, fails=False, presented=token)
            if m.random.random() < 0.04:  # out of the house: another network from now on
                address = f"{city}.{100 + number}"
            m.call(at, "outside", "web", "page", point=Point.EDGE, detail={"host": address, "user": name})
            if m.random.random() < 0.01:
                detail = {"host": address, "user": name}
                m.call(
                    at,
                    "outside",
                    "web",
                    "admin",
                    point=Point.EDGE,
                    reason="user-not-permitted",
                    detail=detail,
                )
        if number % 17 == 3:  # a VPN whose end is elsewhere
            at = _at(day, begins + zone + 1)
            detail = {"host": f"{CITIES['newyork'][0]}.{200 + number % 50}", "user": name}
            m.call(max(at, START), "outside", "web", "page", point=Point.EDGE, detail=detail)


def _people(m, count):
    cities = ("berlin", "berlin", "paris", "lisbon", "newyork", "tokyo")
    for number in range(count):
        _person(m, f"user{number}", cities[number % len(cities)], number)
    for number in range(3):  # flights: eleven hours to the other side of the world
        day = 17 + 4 * number
        for hour, city in ((2, "berlin"), (15, "tokyo")):
            detail = {"host": f"{CITIES[city][0]}.77", "user": f"traveller{number}"}
            m.call(_at(day, hour), "outside", "web", "page", point=Point.EDGE, detail=detail)
    for number in range(14):  # the Monday on which passwords had to be changed, in one office
        at, name = _at(21, 7 + m.random.random()), f"user{6 * (number // 2) + number % 2}"  # who live there
        for _ in range(m.random.choice((1, 2))):
            m.exchange(at, "198.51.100.1", name, fails=True)
        m.exchange(at + timedelta(minutes=1), "198.51.100.1", name, fails=False)


def _outside(m):
    for key in range(4):  # partners, each with a fleet behind several addresses
        for day in range(DAYS):
            for _ in range(max(20, int(60 * m.scale))):
                address = f"198.18.{10 + key}.{m.random.randrange(1, 6)}"
                m.exchange(_at(day, m.random.random() * 24), address, f"key{key:05}", fails=False, key=True)
    for step in range(300):  # one whose key is over, and who tries every minute for five hours
        m.exchange(_at(18, 1 + step / 60), "198.18.10.1", "key00009", fails=True, key=True)
        detail = {"host": "198.18.10.1"}
        m.call(
            _at(18, 1 + step / 60),
            "outside",
            "web",
            "page",
            point=Point.EDGE,
            reason="TOKEN_INVALID",
            detail=detail,
        )
    for day in range(DAYS):  # what every address sees: a few requests for what is not there, from all over
        for _ in range(m.poisson(25)):
            address = (
                f"100.{m.random.randrange(64, 128)}.{m.random.randrange(256)}.{m.random.randrange(1, 255)}"
            )
            at = _at(day, m.random.random() * 24)
            for step in range(m.random.choice((1, 1, 2, 3, 5))):
                detail = {"host": address}
                at += timedelta(seconds=step)
                m.call(
                    at, "outside", "web", None, point=Point.EDGE, reason="unknown-operation", detail=detail
                )


def _when(m, hour=None):
    day = m.random.randrange(QUIET_DAYS, DAYS - 1)
    while day == HOLIDAY:
        day = m.random.randrange(QUIET_DAYS, DAYS - 1)
    return _at(day, m.random.random() * 23 if hour is None else hour)


def _attacks_of_workloads(m):
    for number in range(8):  # moving sideways over what `any` allows
        began, caller = _when(m), SERVICES[number % len(SERVICES)]
        targets = ("ledger", "fraud", "mail")[: 1 + number % 3]
        ids = [m.call(began + timedelta(minutes=i), caller, t, "admin-export") for i, t in enumerate(targets)]
        m.attack("lateral movement", "new-edge", began, ids)
    for number in range(8):
        began, caller = _when(m), SERVICES[(3 * number) % len(SERVICES)]
        ids = [
            m.call(began + timedelta(seconds=8 * i), caller, "payments", "refund", reason="no-rule")
            for i in range(14)
        ]
        m.attack("refused again and again", "denied-burst", began, ids)
    for number in range(8):
        began = _when(m)
        if number % 2:
            address = f"100.100.{number}.9"
            ids = [
                m.call(
                    began + timedelta(seconds=3 * i),
                    "outside",
                    "web",
                    None,
                    point=Point.EDGE,
                    reason="unknown-operation",
                    detail={"host": address},
                    status=403 + i,  # the path differs
                )
                for i in range(40)
            ]
        else:
            caller = SERVICES[number % len(SERVICES)]
            ids = [
                m.call(began + timedelta(seconds=9 * i), caller, SERVICES[i % 9], "read", reason="no-rule")
                for i in range(9)
            ]
        m.attack("looking for a door", "probing", began, ids)


def _attacks_on_people(m):
    for number in range(6):
        began, address = _when(m), f"100.101.{number}.7"
        ids = [
            m.exchange(began + timedelta(seconds=4 * i), address, f"leak{number}{i:04}", fails=i % 40 != 39)
            for i in range(120)
        ]
        m.attack("credential stuffing", "credential-stuffing", began, ids)
    for number in range(6):
        began = _when(m, 1 + number)
        if number % 2:  # from one address, slowly
            ids = [
                m.exchange(began + timedelta(minutes=12 * i), f"100.102.{number}.7", f"user{i}", fails=True)
                for i in range(30)
            ]
        else:  # from many
            ids = [
                m.exchange(
                    began + timedelta(seconds=50 * i), f"100.103.{i % 40}.{number}", f"user{i}", fails=True
                )
                for i in range(45)
            ]
        m.attack("password spray", "password-spray", began, ids)
    for number in range(8):
        began, kind = _when(m, 10), number % 4
        if kind == 3:
            places = ("198.51.100.20", "100.104.1.1")
            ids = [
                m.exchange(
                    began + timedelta(seconds=45 * i),
                    places[i % 2],
                    f"user{number}",
                    fails=False,
                    presented=f"x{number}",
                )
                for i in range(6)
            ]
        else:
            code = ("TOKEN_REPLAYED", "BINDING_MISMATCH", "TOKEN_REVOKED")[kind]
            ids = [
                m.call(began + timedelta(seconds=20 * i), "media", "payments", "charge", reason=code)
                for i in range(4)
            ]
        m.attack("token replay", "token-replay", began, ids)
    for number in range(8):
        began, name = _when(m, 13.5), f"user{6 * number + number % 4}"
        city = ("berlin", "berlin", "paris", "lisbon")[number % 4]
        detail = {
            "host": f"{CITIES[city][0]}.{10 + 6 * number + number % 4}",
            "user": name,
        }  # the owner is at work
        m.call(began - timedelta(minutes=40), "outside", "web", "page", point=Point.EDGE, detail=detail)
        detail = {"host": f"{CITIES['sydney'][0]}.{number + 1}", "user": name}
        ids = [
            m.call(began + timedelta(minutes=i), "outside", "web", "page", point=Point.EDGE, detail=detail)
            for i in range(5)
        ]
        m.attack("stolen session far away", "impossible-travel", began, ids)
    for number in range(8):  # people of Europe, in the middle of their night, from an address that they have
        name, home = f"user{number * 6}", CITIES["berlin"][0]
        began = _when(m, 1.2)
        detail = {"host": f"{home}.{10 + number * 6}", "user": name}
        ids = [
            m.call(began + timedelta(minutes=i), "outside", "web", "page", point=Point.EDGE, detail=detail)
            for i in range(20)
        ]
        m.attack("at night", "unusual-hour", began, ids)


def _attacks_on_data(m):
    for number in range(8):  # a store of data is copied over an edge that is allowed
        caller, target, operations, base = EDGES[number % len(EDGES)]
        began = _when(m, m.random.randrange(24))
        amount = int(m.scale * base * len(EDGES) * 1.2) + 80
        ids = [
            m.call(began + timedelta(seconds=1500 * i / amount), caller, target, operations[0])
            for i in range(amount)
        ]
        m.attack("copying data", "volume", began, ids)
    for number in range(6):
        began = _when(m)
        if number % 2:
            ids = [
                m.call(
                    began,
                    SERVICES[number],
                    "vault-backup",
                    None,
                    point=Point.EGRESS,
                    reason="undeclared-destination",
                )
            ]
        else:
            detail = {
                "canary": f"c{number}",
                "canary_kind": "api-key",
                "source": f"100.105.0.{number}",
                "response": "block",
            }
            ids = [
                m.add(
                    began,
                    kind=Kind.TOKEN,
                    point=Point.CONTROL,
                    operation="canary-used",
                    decision="deny",
                    detail=detail,
                )
            ]
        m.attack("a canary", "canary", began, ids)


def make_month(seed=5, *, scale=1.0, people=60, attacks=True):
    """Return a month; the same for the same arguments."""
    m = _Maker(seed, scale)
    _services(m)
    _changes(m)
    _people(m, people)
    _outside(m)
    if attacks:
        _attacks_of_workloads(m)
        _attacks_on_people(m)
        _attacks_on_data(m)
    records = []
    for n in range(1, len(m.heap) + 1):
        time, _, values = heapq.heappop(m.heap)
        if values.get("status"):
            values["path"] = f"/{values.pop('status')}"
        records.append(Record(seq=n, producer="month", time=time, **values))
    return Month(records=records, attacks=m.attacks, subjects=len(SERVICES) + people + 7, opened=m.opened)
