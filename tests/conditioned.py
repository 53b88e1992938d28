# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for policies with conditions, and for what is known of the calls that meet them.

``conditioned_documents()`` adds conditions (and attributes for them) to the documents of :mod:`tests.strategies`;
``facts()`` gives the header lines and the address of one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from tests.strategies import policy_documents

REGION, LEVEL = "x-region", "x-level"
ATTRIBUTES = {
    "request": {"headers": [REGION, LEVEL]},
    "service": {
        "team": "string",
        "tier": {"type": "int", "default": 2},
        "load": "double",
        "tags": "strings",
        "since": "timestamp",
        "legacy": "bool",
    },
}
_TODAY = datetime.now(UTC)
_SOON = (_TODAY + timedelta(days=400)).strftime("%Y-%m-%dT00:00:00Z")

IN_ENVOY = (
    "now < timestamp('2000-01-01T00:00:00Z')",
    f"now < timestamp('{_SOON}')",
    "timestamp('2000-01-01T00:00:00+02:00') <= now",
    f"now.getDayOfWeek() == {_TODAY.isoweekday() % 7}",
    f"now.getFullYear() == {_TODAY.year} || now.getFullYear() == {_TODAY.year + 1}",
    f"now.getHours('+05:30') < {(_TODAY.hour + 6) % 24}",
    f"now.getHours('-09:30') >= {_TODAY.hour}",
    f"now.getMinutes('-02:15') < {_TODAY.minute}",
    "now.getHours('UTC') * 60 + now.getMinutes() < 1440",
    f"now + duration('36h') < timestamp('{_SOON}')",
    "now - timestamp('2020-01-01T00:00:00Z') > duration('1h')",
    "request.headers['x-region'] == 'eu'",
    "request.headers['x-region'] != 'eu'",
    "request.headers['x-region'] in ['eu', 'us']",
    "'x-region' in request.headers",
    "!('x-level' in request.headers)",
    "request.headers['x-region'].startsWith('e')",
    "request.headers['x-level'].endsWith('0')",
    "size(request.headers['x-level']) == 2",
    "starts_with_any(request.headers['x-level'], ['1', '2', '3'])",
    "request.headers['x-region'] == request.headers['x-level']",
    "('x-region' in request.headers ? request.headers['x-region'] : 'none') in ['none', 'us']",
    "request.path.contains('a')",
    "request.path == '/a' || request.path.endsWith('b')",
    "request.method == 'GET'",
    "operation in ['list', 'read']",
    "caller.name == 'beta'",
    "caller.spiffe_id.endsWith('/beta')",
    "target.name == 'alpha'",
    "caller.team == 'blue'",
    "caller.team == target.team",
    "caller.team in caller.tags",
    "caller.tier >= target.tier",
    "caller.load * 2.0 > 1.0",
    "caller.since < now",
    "caller.legacy || caller.tier == 2",
    "10 / (caller.tier - 2) > 0",
    "in_cidr(request.source_ip, '127.0.0.0/30')",
    "in_cidr(request.source_ip, '127.0.0.5')",
    "in_cidr(request.source_ip, '2001:db8::/32')",
    "true",
    "false",
)
AT_THE_AGENT = (
    "request.query['q'] == '1'",
    "user.id == 'alice'",
    "user.mfa",
    "now.getHours('Europe/Paris') >= 0",
    "request.headers['x-region'].matches('^e[a-z]$')",
    "int(request.headers['x-level']) > 15",
    "size(request.path_params) == 1",
    "has_role(caller.tags, 'blue')",
)
_SERVICE_ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "team": st.sampled_from(("blue", "red")),
        "tier": st.integers(1, 3),
        "load": st.sampled_from((0.25, 0.5, 1.0)),
        "tags": st.sampled_from((["blue"], ["red", "green"])),
        "since": st.sampled_from(("2001-02-03T04:05:06Z", _SOON)),
        "legacy": st.booleans(),
    },
)


@dataclass(frozen=True, slots=True)
class Facts:
    """The header lines of a call (name, value), and the address that it comes from."""

    headers: tuple[tuple[str, str], ...]
    source: str

    def lines(self) -> dict[str, tuple[str, ...]]:
        """The lines by name, as a context has them."""
        return {n: tuple(v for m, v in self.headers if m == n) for n in {name for name, _ in self.headers}}


@st.composite
def texts(draw: st.DrawFn, *, agent: bool = True) -> str:
    """The text of a condition; with ``agent`` now and then one that Envoy cannot evaluate."""
    atom = st.sampled_from(IN_ENVOY)
    if agent and draw(st.integers(0, 3)) == 0:
        atom = st.sampled_from(AT_THE_AGENT)
    text = draw(atom)
    for _ in range(draw(st.integers(0, 2))):
        form = draw(st.sampled_from(("({0}) && ({1})", "({0}) || ({1})", "!({0})", "({0}) ? ({1}) : !({1})")))
        text = form.format(text, draw(atom))
    return text


@st.composite
def conditioned_documents(draw: st.DrawFn, *, agent: bool = True) -> dict[str, Any]:
    """A valid policy in which most rules have a condition."""
    document = draw(policy_documents())
    document["attributes"] = ATTRIBUTES
    for entry in document["services"].values():
        if known := draw(_SERVICE_ATTRIBUTES):
            entry["attributes"] = known
    for effect in ("allow", "deny"):
        for rule in document.get(effect, ()):
            text = draw(texts(agent=agent))
            if agent and effect == "deny" and draw(st.integers(0, 3)) == 0:
                text = "now.getHours('Europe/Paris') >= 0"  # one that holds, but not for Envoy
            if draw(st.integers(0, 4)) and _suits(rule, text, document["services"], effect):
                rule["when"] = text
    return document


def _suits(rule: dict[str, Any], text: str, services: dict[str, Any], effect: str) -> bool:
    """Whether the policy would take the condition: users are of rules for users, requests are no connections'."""
    is_tcp = "tcp" in services.get(rule["to"], {})
    reads_request = "request." in text.replace("request.source_ip", "")
    return not (is_tcp and reads_request) and not (effect == "allow" and "user." in text)


_VALUES = st.sampled_from(("eu", "eu", "us", "e", "", "10", "20", "3", "eu,us", "é", "a\tb", "EU"))


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    """Header lines: none, one, several, lists, odd bytes; one of three addresses of this machine."""
    lines: list[tuple[str, str]] = []
    for name in (REGION, LEVEL):
        count = draw(st.sampled_from((0, 1, 1, 1, 1, 1, 2)))
        lines += [(name, draw(_VALUES)) for _ in range(count)]
    return Facts(tuple(lines), draw(st.sampled_from(("127.0.0.1", "127.0.0.4", "127.0.0.5"))))
