# SPDX-License-Identifier: Apache-2.0
"""Who is blocked, as filters in front of the policy's own: a hash look-up or a trie, whatever their number.

They come by themselves (ECDS), so a block costs no rendering of a policy and is in force within milliseconds, on open
connections too.  While nobody is blocked they hold nothing to ask.  Their verdict is ``SNAPSHOT|blocked|KIND|END``, the
end in seconds since 1970; who was blocked stands in the record already.  Connections and streams that are open are cut by
a new name of the filter chain that holds them (:func:`renamed_chains`).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from everyhop.anomaly.blocks_codec import MAX_BLOCKS
from everyhop.core.decision import Reason
from everyhop.dataplane import _names as names
from everyhop.dataplane._protobuf import Prepared
from everyhop.dataplane._resources import Json, extension, typed
from everyhop.dataplane.enforcement import CALLER, HTTP_FILTER, by_value, named_action

if TYPE_CHECKING:
    from collections.abc import Iterable

    from everyhop.anomaly.model import Block

FOREVER: Final = 9_999_999_999
"""The end of a block without one."""

_SOURCE: Final = extension("source", "envoy.extensions.matching.common_inputs.network.v3.SourceIPInput")
_TRIE: Final = "xds.type.matcher.v3.IPMatcher"
_RANGES: Final = _TRIE + ".IPRangeMatcher"
_ON_MATCH: Final = "xds.type.matcher.v3.Matcher.OnMatch"


def nobody_blocked() -> Json:
    """Return the filter that lets everything through to the policy's own."""
    return typed(HTTP_FILTER)


def refused_callers(snapshot: str, blocked: Iterable[Block]) -> Json:
    """Return what an ingress refuses: callers by their SPIFFE ID.  ``snapshot`` is the hash of the policy beneath."""
    refused = {b.subject.value: _refused(snapshot, b) for b in _sorted(blocked)}
    return (
        typed(HTTP_FILTER, matcher=by_value(CALLER, refused, _passed())["matcher"])
        if refused
        else nobody_blocked()
    )


def refused_addresses(snapshot: str, blocked: Iterable[Block]) -> Json:
    """Return what an edge refuses: addresses, and networks of IPv6, by a trie."""
    ranges = [_range(b.subject.value, verdict_of(snapshot, b)) for b in _sorted(blocked)]
    if not ranges:
        return nobody_blocked()
    trie = {"name": "trie", "typed_config": typed(_TRIE, range_matchers=ranges)}
    return typed(
        HTTP_FILTER,
        matcher={"matcher_tree": {"input": _SOURCE, "custom_match": trie}, "on_no_match": _passed()},
    )


def refused_workload(snapshot: str, block: Block | None) -> Json:
    """Return what an egress refuses: everything, while its own workload is blocked."""
    if block is None:
        return nobody_blocked()
    refused = _refused(snapshot, block)
    return typed(HTTP_FILTER, matcher=by_value(_SOURCE, {names.NOTHING: refused}, refused)["matcher"])


def verdict_of(snapshot: str, block: Block) -> str:
    """Return the name of the action that refuses a blocked call."""
    end = FOREVER if block.until is None else int(block.until.timestamp()) + 1
    return names.verdict(snapshot, Reason.BLOCKED, f"{block.subject.kind.value}|{end}")


def renamed_chains(listeners: list[Any], mark: str) -> list[Any]:
    """Return listeners of which the ingress has a chain of another name: Envoy ends the connections of the old one.

    That of an edge stays: there a stranger could have everybody else's streams cut by having addresses blocked.
    """
    return [
        {**listener, "filter_chains": [_renamed(chain, mark) for chain in listener["filter_chains"]]}
        if listener["name"] == names.INGRESS
        else listener
        for listener in listeners
    ]


def _renamed(chain: Json, mark: str) -> Json:
    return {**chain, "name": f"{chain['name']}+{mark}"}


def _sorted(blocks: Iterable[Block]) -> list[Block]:
    return sorted(blocks, key=lambda block: block.subject.value)


@lru_cache(maxsize=2 * MAX_BLOCKS)
def _range(value: str, verdict: str) -> Prepared:
    network = ipaddress.ip_network(value)
    place = {"address_prefix": str(network.network_address), "prefix_len": network.prefixlen}
    return Prepared(_RANGES, {"ranges": [place], "on_match": _refusal(verdict)})


def _refused(snapshot: str, block: Block) -> Json:
    return _refusal(verdict_of(snapshot, block))


@lru_cache(maxsize=2 * MAX_BLOCKS)
def _refusal(verdict: str) -> Prepared:
    return Prepared(_ON_MATCH, named_action(verdict, allow=False))


def _passed() -> Json:
    return named_action(names.NOTHING, allow=True)
