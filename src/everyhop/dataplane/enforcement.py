# SPDX-License-Identifier: Apache-2.0
"""The policy of one service as Envoy's RBAC filter: hash look-ups first, expressions only for templates.

The order is that of :class:`everyhop.authz.engine.Engine`.  Conditions that Envoy can evaluate stand where the rules do
(:mod:`everyhop.dataplane.placing`).  Every matcher below names what happens when it does
not match, so Envoy never falls back to an outer one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.decision import Effect, Reason
from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import Json, discovery_response, extension, from_agent, type_url, typed
from everyhop.dataplane.checks import needs_of
from everyhop.dataplane.paths import clean_key_expression, literal_key, template_expression, template_prefix
from everyhop.dataplane.placing import PlacedVerdict
from everyhop.dataplane.predicates import negated
from everyhop.policy.access import TCP
from everyhop.policy.model import UserMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from everyhop.authz.table import OperationEntry, ServiceTable, Verdict
    from everyhop.dataplane.placing import Steps
    from everyhop.dataplane.predicates import Predicate
    from everyhop.policy.model import Operation, Snapshot

KEY_OBJECT: Final = "everyhop.key"
"""Filter state that holds the key of a request (see :mod:`everyhop.dataplane.paths`)."""

KEY_FILTER: Final = extension(
    "key",
    "envoy.extensions.filters.http.set_filter_state.v3.Config",
    on_request_headers=[
        {
            "object_key": KEY_OBJECT,
            "factory_key": "envoy.string",
            "format_string": {"text_format_source": {"inline_string": "%REQ(:METHOD)% %PATH(NQ:PATH)%"}},
        }
    ],
)
"""The filter that writes the key; it stands before the policy's."""

_KEY: Final = extension(
    "key", "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput", key=KEY_OBJECT
)
CALLER: Final = extension("caller", "envoy.extensions.matching.common_inputs.ssl.v3.UriSanInput")
"""Who calls, as the certificate of the connection says."""

_METHOD: Final = extension(
    "method", "envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=":method"
)
_MANY: Final = 4  # callers; one expression for their names is then cheaper than their conditions again
HTTP_FILTER: Final = "envoy.extensions.filters.http.rbac.v3.RBAC"


class _Compiler:
    """Compiles one table; ``leaf`` turns an operation into what happens once it is recognised."""

    def __init__(
        self, table: ServiceTable, *, ambiguous: Json, unknown: Json, leaves: Mapping[str, Json]
    ) -> None:
        self._table = table
        self._ambiguous = ambiguous
        self._unknown = unknown
        self._leaves = leaves

    def matcher(self) -> Json:
        """Return the matcher: literal paths by hash, then clean paths by prefix and template, else ambiguous."""
        clean = clean_key_expression(self._table.guarded)
        other = _first_of([(clean, self._templates())], self._ambiguous)
        literals = {
            literal_key(method, path): self._leaves[operation.name]
            for path, methods in self._table.literal_index.items()
            for method, operation in methods.items()
        }
        matcher: Json = (by_value(_KEY, literals, other) if literals else other)["matcher"]
        return matcher

    def _templates(self) -> Json:
        """Return what happens to a clean path that no route spells out."""
        lists = {
            prefix: _first_of(
                [(template_expression(o.route), self._leaves[o.name]) for o in bucket], self._unknown
            )
            for prefix, bucket in template_buckets(self._table.templates).items()
        }
        return by_value(_KEY, lists, self._unknown, kind="prefix_match_map") if lists else self._unknown


def template_buckets(templates: Sequence[Operation]) -> dict[str, list[Operation]]:
    """Return templates by the start of their keys.

    Each bucket holds every template whose own start is a start of the bucket's, the most specific first (the
    order of ``templates``), because Envoy looks into the bucket with the longest matching start only.
    """
    own: dict[str, list[int]] = {}
    for rank, operation in enumerate(templates):
        own.setdefault(template_prefix(operation.route), []).append(rank)
    buckets = {}
    for prefix in sorted(own):
        starts = (prefix[: i + 1] for i, character in enumerate(prefix) if character == "/")
        ranks = sorted(rank for start in starts for rank in own.get(start, ()))
        buckets[prefix] = [templates[rank] for rank in ranks]
    return buckets


def http_authorization(snapshot: Snapshot, table: ServiceTable, *, marks_strangers: bool = True) -> Json:
    """Return the RBAC filter of an HTTP service: it decides by method, path and caller, and names the operation.

    ``marks_strangers``: the name of the operation tells whether its caller is declared, for which the filter holds the
    name of every service.
    """
    refused = {
        reason: named_action(names.verdict(snapshot.hash, reason, None), allow=False)
        for reason in (Reason.AMBIGUOUS_PATH, Reason.UNKNOWN_OPERATION, Reason.NO_RULE)
    }
    enforced = {
        entry.operation.name: _callers(snapshot, entry, refused[Reason.NO_RULE]) for entry in table.entries
    }
    return typed(
        HTTP_FILTER,
        matcher=_Compiler(
            table,
            ambiguous=refused[Reason.AMBIGUOUS_PATH],
            unknown=_unknown(snapshot, table, refused[Reason.UNKNOWN_OPERATION]),
            leaves=enforced,
        ).matcher(),
        shadow_matcher=_named(snapshot, lambda mark: _operations(table, mark))
        if marks_strangers
        else _operations(table, ""),
    )


def _unknown(snapshot: Snapshot, table: ServiceTable, refused: Json) -> Json:
    """Return what happens to an operation that the policy does not know: it passes where that is only watched."""
    if not table.watched:
        return refused
    passed = named_action(names.verdict(snapshot.hash, Reason.SHADOWED, None), allow=True)
    return by_value(CALLER, dict.fromkeys(sorted(table.watched), passed), refused)


def edge_authorization(snapshot: Snapshot, table: ServiceTable) -> Json:
    """Return the RBAC filter of an edge: it decides by method and path, for callers from outside alone."""
    refused = {
        reason: named_action(names.verdict(snapshot.hash, reason, None), allow=False)
        for reason in (Reason.AMBIGUOUS_PATH, Reason.UNKNOWN_OPERATION)
    }
    return typed(
        HTTP_FILTER,
        matcher=_Compiler(
            table,
            ambiguous=refused[Reason.AMBIGUOUS_PATH],
            unknown=refused[Reason.UNKNOWN_OPERATION],
            leaves={
                e.operation.name: _verdict_action(snapshot, e.outside, e.operation) for e in table.entries
            },
        ).matcher(),
        shadow_matcher=_operations(table, ""),
    )


def tcp_authorization(snapshot: Snapshot, verdicts: Mapping[str, Verdict]) -> Json:
    """Return the RBAC filter of a tcp service, which is reached by HTTP CONNECT: it decides by caller alone."""
    unknown = named_action(names.verdict(snapshot.hash, Reason.UNKNOWN_CALLER, None), allow=False)
    wrong = named_action(names.verdict(snapshot.hash, Reason.WRONG_PROTOCOL, None), allow=False)
    return typed(
        HTTP_FILTER,
        matcher=by_value(_METHOD, {"CONNECT": _by_caller(snapshot, verdicts, None, unknown)}, wrong)[
            "matcher"
        ],
        shadow_matcher=_named(
            snapshot,
            lambda mark: by_value(_METHOD, {"CONNECT": _name(mark + TCP)}, _name(mark + names.NOTHING))[
                "matcher"
            ],
        ),
    )


def undeclared_service(snapshot: Snapshot) -> Json:
    """Return a filter that refuses everything and says that the policy does not declare this service."""
    refused = named_action(names.verdict(snapshot.hash, Reason.UNKNOWN_SERVICE, None), allow=False)
    return typed(HTTP_FILTER, matcher=by_value(_METHOD, {names.NOTHING: refused}, refused)["matcher"])


def deny_all() -> Json:
    """Return a filter that refuses everything: in force until a good file has been read."""
    return typed(HTTP_FILTER, rules={"action": "ALLOW", "policies": {}})


def delivered_filter(name: str) -> Json:
    """Return a filter whose configuration comes by itself (ECDS); without a good one, everything is refused."""
    return {
        "name": name,
        "config_discovery": {
            "config_source": from_agent(),
            "type_urls": [type_url(HTTP_FILTER)],
            "default_config": deny_all(),
        },
    }


def filter_file(name: str, config: Json, version: str) -> Json:
    """Return the content of a watched file that delivers one filter's configuration (ECDS)."""
    resource = typed("envoy.config.core.v3.TypedExtensionConfig", name=name, typed_config=config)
    return discovery_response(version, [resource])


def _named(snapshot: Snapshot, operations: Callable[[str], Json]) -> Json:
    """Return the shadow matcher, which refuses nobody: it names the operation, and marks callers nobody declared.

    The mark tells ``unknown-caller`` from ``no-rule`` without repeating every service at every operation.
    """
    declared = "|".join(re.escape(str(service.spiffe_id)) for service in snapshot.services.values())
    known: Json = {"matcher": operations("")}
    return {
        "matcher_list": {"matchers": [_when(CALLER, f"(?:{declared})", known)]},
        "on_no_match": {"matcher": operations(names.STRANGER)},
    }


def _operations(table: ServiceTable, mark: str) -> Json:
    nothing = _name(mark + names.NOTHING)
    named = {o.name: _name(mark + o.name) for o in table.operations}
    return _Compiler(table, ambiguous=nothing, unknown=nothing, leaves=named).matcher()


def _name(name: str) -> Json:
    return named_action(name, allow=True)


def _callers(snapshot: Snapshot, entry: OperationEntry, no_rule: Json) -> Json:
    """Return the decision at one operation; callers without a rule are not listed."""
    ruled = {c: verdict for c, verdict in entry.verdicts.items() if verdict.reason is not Reason.NO_RULE}
    return _by_caller(snapshot, ruled, entry.operation, no_rule)


def _by_caller(
    snapshot: Snapshot, verdicts: Mapping[str, Verdict], operation: Operation | None, otherwise: Json
) -> Json:
    """Return the decision by caller; callers with the same conditions share them once they are many."""
    actions: dict[str, Json] = {}
    alike: dict[tuple[object, ...], list[str]] = {}
    for caller, verdict in verdicts.items():
        if isinstance(verdict, PlacedVerdict):
            alike.setdefault(verdict.steps.key, []).append(caller)
        else:
            actions[caller] = _verdict_action(snapshot, verdict, operation)
    shared: list[Json] = []
    for callers in alike.values():
        action = _verdict_action(snapshot, verdicts[callers[0]], operation)
        if len(callers) < _MANY:
            actions |= dict.fromkeys(callers, action)
        else:
            shared.append(_when(CALLER, f"(?:{'|'.join(map(re.escape, callers))})", action))
    if shared:
        otherwise = {"matcher": {"matcher_list": {"matchers": shared}, "on_no_match": otherwise}}
    return by_value(CALLER, actions, otherwise) if actions else otherwise


def _verdict_action(snapshot: Snapshot, verdict: Verdict, operation: Operation | None = None) -> Json:
    if isinstance(verdict, PlacedVerdict):
        return _steps(snapshot, verdict.steps, operation)
    # Bytes of a tcp service are never asked about, so what facts would have to decide is refused there.
    allow = verdict.effect is Effect.ALLOW and not (verdict.asks and operation is None)
    needs = ""
    if operation is not None and allow:
        needs = needs_of(operation, verdict.user, asks=verdict.asks)
    if verdict.asks and operation is None:
        return named_action(names.verdict(snapshot.hash, Reason.CONDITION_ERROR, None), allow=False)
    return named_action(names.verdict(snapshot.hash, verdict.reason, verdict.rule, needs), allow=allow)


def _steps(snapshot: Snapshot, steps: Steps, operation: Operation | None) -> Json:
    """Return the decision of a case whose conditions Envoy evaluates; its order is that of ``authz.cases``.

    A condition that is neither true nor false is an error: a deny rule then denies, an allow rule does not allow.
    """
    needs = "" if operation is None else needs_of(operation, UserMode.NONE)

    def end(reason: Reason, rule: str | None) -> Json:
        is_open = reason in {Reason.ALLOWED, Reason.PROBE}
        name = names.verdict(snapshot.hash, reason, rule, needs if is_open else "")
        return named_action(name, allow=is_open)

    tests: list[tuple[Predicate, Json]] = []
    for step in steps.denying:
        tests.append((step.is_true, end(Reason.DENIED_BY_RULE, step.rule.id)))
        tests.append((negated(step.is_false), end(Reason.CONDITION_ERROR, step.rule.id)))
    if steps.probe is not None:
        otherwise = end(Reason.PROBE, steps.probe)
    elif steps.allow is not None:
        otherwise = end(Reason.ALLOWED, steps.allow.id)
    elif steps.allowing:
        tests += [(step.is_true, end(Reason.ALLOWED, step.rule.id)) for step in steps.allowing]
        tests.append((steps.allowing[0].is_false, end(Reason.CONDITION_FALSE, None)))
        otherwise = end(Reason.CONDITION_ERROR, None)
    else:
        otherwise = end(Reason.NO_RULE, None)
    return _first_that_holds(tests, otherwise)


def _first_that_holds(tests: Sequence[tuple[Predicate, Json]], otherwise: Json) -> Json:
    matchers: list[Json] = []
    for predicate, outcome in tests:
        if predicate is True:
            otherwise = outcome
            break
        if predicate is not False:
            matchers.append({"predicate": predicate, "on_match": outcome})
    if not matchers:
        return otherwise
    return {"matcher": {"matcher_list": {"matchers": matchers}, "on_no_match": otherwise}}


def named_action(name: str, *, allow: bool) -> Json:
    """Return what a matcher ends in: a verdict by its name."""
    action = typed("envoy.config.rbac.v3.Action", name=name, action="ALLOW" if allow else "DENY")
    return {"action": {"name": "action", "typed_config": action}}


def by_value(
    source: Json, values: Mapping[str, Json], otherwise: Json, *, kind: str = "exact_match_map"
) -> Json:
    """Return a matcher that looks one input up."""
    tree: dict[str, Any] = {"input": source, kind: {"map": dict(values)}}
    return {"matcher": {"matcher_tree": tree, "on_no_match": otherwise}}


def _first_of(expressions: list[tuple[str, Json]], otherwise: Json) -> Json:
    matchers = [_when(_KEY, expression, outcome) for expression, outcome in expressions]
    return {"matcher": {"matcher_list": {"matchers": matchers}, "on_no_match": otherwise}}


def _when(source: Json, expression: str, outcome: Json) -> Json:
    regex = {"safe_regex": {"google_re2": {}, "regex": expression}}
    return {"predicate": {"single_predicate": {"input": source, "value_match": regex}}, "on_match": outcome}
