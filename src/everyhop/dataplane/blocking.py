# SPDX-License-Identifier: Apache-2.0
"""Who is blocked, as filters in front of the policy's own: a hash look-up or a trie, whatever their number.

They come by themselves (ECDS), so a block costs no rendering of a policy and is in force within milliseconds, on open
connections too.  While nobody is blocked they hold nothing to ask.  Their verdict is ``SNAPSHOT|blocked|KIND|END``, the
end in seconds since 1970; who was blocked stands in the record already.  Connections and streams that are open are cut by
a new name of the filter chain that holds them (:func:`renamed_chains`).
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final

from everyhop.anomaly.model import SubjectKind
from everyhop.core.decision import Reason
from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import Json, extension, from_agent, type_url, typed
from everyhop.dataplane.enforcement import CALLER, HTTP_FILTER, by_value, deny_all, named_action

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from everyhop.anomaly.model import Block, Blocks

FOREVER: Final = 9_999_999_999
"""The end of a block without one."""

_SOURCE: Final = extension("source", "envoy.extensions.matching.common_inputs.network.v3.SourceIPInput")
_TRIE: Final = "xds.type.matcher.v3.IPMatcher"


def blocked_filter(name: str) -> Json:
    """Return the filter of a listener; what it refuses comes by itself, and until then it refuses everything."""
    return {
        "name": name,
        "config_discovery": {
            "config_source": from_agent(),
            "type_urls": [type_url(HTTP_FILTER)],
            "default_config": deny_all(),
        },
    }


def nobody_blocked() -> Json:
    """Return the filter that lets everything through to the policy's own."""
    return typed(HTTP_FILTER)


def blocking(snapshot: str, blocks: Blocks, now: datetime, *, own: str) -> dict[str, Json]:
    """Return what the filters of one sidecar refuse now, by their names.

    ``snapshot`` is the hash of the policy that the sidecar enforces, ``own`` the SPIFFE ID of its service.
    """
    in_force = [block for block in blocks.by_subject.values() if block.holds(now)]
    callers = {b.subject.value: b for b in in_force if b.subject.kind is SubjectKind.IDENTITY}
    addresses = {b.subject.value: b for b in in_force if b.subject.kind is SubjectKind.ADDRESS}
    return {
        names.BLOCKED: _callers(snapshot, callers),
        names.EDGE_BLOCKED: _addresses(snapshot, addresses),
        names.EGRESS_BLOCKED: _everything(snapshot, callers.get(own)),
    }


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


def _callers(snapshot: str, blocked: Mapping[str, Block]) -> Json:
    if not blocked:
        return nobody_blocked()
    refused = {value: _refused(snapshot, block) for value, block in sorted(blocked.items())}
    return typed(HTTP_FILTER, matcher=by_value(CALLER, refused, _passed())["matcher"])


def _addresses(snapshot: str, blocked: Mapping[str, Block]) -> Json:
    if not blocked:
        return nobody_blocked()
    ranges = [
        {"ranges": [_range(value)], "on_match": _refused(snapshot, block)}
        for value, block in sorted(blocked.items())
    ]
    trie = {"name": "trie", "typed_config": typed(_TRIE, range_matchers=ranges)}
    return typed(
        HTTP_FILTER,
        matcher={"matcher_tree": {"input": _SOURCE, "custom_match": trie}, "on_no_match": _passed()},
    )


def _everything(snapshot: str, block: Block | None) -> Json:
    if block is None:
        return nobody_blocked()
    refused = _refused(snapshot, block)
    return typed(HTTP_FILTER, matcher=by_value(_SOURCE, {"-": refused}, refused)["matcher"])


def _range(value: str) -> Json:
    network = ipaddress.ip_network(value)
    return {"address_prefix": str(network.network_address), "prefix_len": network.prefixlen}


def _refused(snapshot: str, block: Block) -> Json:
    return named_action(verdict_of(snapshot, block), allow=False)


def _passed() -> Json:
    return named_action(names.NOTHING, allow=True)
