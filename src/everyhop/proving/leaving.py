# SPDX-License-Identifier: Apache-2.0
"""What is asked of calls that leave: for declared hosts, and for what is no service of the policy."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from everyhop.evaluators.model import Request, Wire
from everyhop.proving.callers import outside
from everyhop.proving.model import Ask, CallerKind
from everyhop.targets.model import Feature

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from everyhop.evaluators.model import Workload
    from everyhop.proving.callers import Population
    from everyhop.proving.model import Caller
    from everyhop.targets.intents import Intents

UNUSED_PORT: Final = 9
"""A port that no policy of sense names (RFC 863)."""

_OTHER_HOST: Final = "everyhop-not-allowed.example"
_OTHER_NAMESPACE: Final = "everyhop-other"
_DNS_PORT: Final = 53
_FEW: Final = 2
_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})


def egress(intents: Intents, population: Population) -> Iterator[Ask]:
    """Yield calls of the declared hosts by everybody who may, by a few who may not; other ports, and other hosts."""
    for one in intents.settings.egress:
        others = [name for name in intents.names if name not in one.callers][:_FEW]
        for name in (*one.callers, *others):
            yield _leaving(population.service(name), one.host, one.port)
        for name in one.callers[:_FEW]:
            caller = population.service(name)
            yield _leaving(caller, one.host, UNUSED_PORT, f"port {UNUSED_PORT}")
            yield _leaving(caller, f"x-{one.host}", one.port, "a host that ends alike")
            yield _leaving(caller, f"{one.host}.evil.example", one.port, "a host that starts alike")
            yield _leaving(caller, _OTHER_HOST, one.port, "another host")


def _leaving(caller: Caller, host: str, port: int, words: str = "") -> Ask:
    request = Request(
        source=caller.workload, target=outside(host), port=port, peer=None, wire=Wire.TCP, host=host, dns_name=host
    )  # fmt: skip
    return Ask(
        caller=caller, service=host, door="egress", request=request, aspect=Feature.EGRESS, variation=words,
        rank=3 if words else 0, is_egress=True,
    )  # fmt: skip


def bounds(
    intents: Intents, population: Population, edges: Mapping[str, frozenset[str]], dns: Workload
) -> Iterator[Ask]:
    """Yield calls of every service for the DNS, for pods of nobody beside those that it may reach, and for the world.

    ``edges`` are the services that each may reach.  A rule that lost its peer, its namespace or its port opens one of these.
    """
    for name in intents.names:
        caller = population.service(name)
        if caller.kind is CallerKind.CANARY:
            continue
        yield _bound(caller, dns, _DNS_PORT, is_dns=True)
        yield _bound(caller, replace(dns, labels=_NO_LABELS), _DNS_PORT)
        yield _bound(caller, replace(dns, namespace=_OTHER_NAMESPACE), _DNS_PORT)
        yield _bound(caller, dns, UNUSED_PORT)
        seen: set[tuple[str, int]] = set()
        for target, port in ((one, intents.of(one).port) for one in (*sorted(edges.get(name, ())), name)):
            yield _bound(caller, population.elsewhere(target), port)
            namespace = population.workload(target).namespace
            for number in sorted({(namespace, port), (namespace, UNUSED_PORT)} - seen):
                seen.add(number)
                yield _bound(caller, population.strangers(namespace)[0].workload, number[1])
            if ("", port) not in seen:
                seen.add(("", port))
                yield _bound(caller, outside(_OTHER_HOST), port)
        yield _bound(caller, outside(_OTHER_HOST), UNUSED_PORT)


def _bound(caller: Caller, target: Workload, port: int, *, is_dns: bool = False) -> Ask:
    request = Request(source=caller.workload, target=target, port=port, peer=caller.peer, wire=Wire.TCP)
    return Ask(
        caller=caller, service=target.name, door="", request=request, aspect=Feature.EGRESS, rank=2,
        variation="to what is no service of the policy", is_bound=True, is_dns=is_dns,
    )  # fmt: skip
