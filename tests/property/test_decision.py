# SPDX-License-Identifier: Apache-2.0
"""The decision against an independent second one, and the laws it must keep under every policy."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, given, strategies as st
from tests import reference_decision as reference
from tests.strategies import STRANGERS, Request, policies, policy_documents, requests_for, to_files

from everyhop.authz import AmbiguousPath, Engine, classify_path, reachable_targets, service_table
from everyhop.core.decision import Effect, Reason
from everyhop.policy import parse_policy
from everyhop.policy.edit import append_entry
from everyhop.policy.routes import guarded_characters


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], Any, list[Request]]:
    document = draw(policy_documents())
    snapshot = parse_policy(to_files(document))
    return document, snapshot, draw(st.lists(requests_for(snapshot), min_size=1, max_size=12))


def ask(engine: Engine, request: Request):
    return engine.decide(
        caller=request.caller, target=request.target, method=request.method, path=request.path
    )


@given(cases())
def test_it_answers_like_a_linear_scan_with_regular_expressions(case):
    document, snapshot, requests = case
    engine = Engine(snapshot)
    for request in requests:
        for _ in range(2):  # the second answer comes from what the first one left behind
            decision = ask(engine, request)
            expected = reference.decide(
                document, request.caller, request.target, request.method, request.path
            )
            assert (decision.effect, decision.reason) == expected, request


@given(cases())
def test_tcp_is_answered_like_a_linear_scan(case):
    document, snapshot, _ = case
    engine = Engine(snapshot)
    for caller in (*(str(s.spiffe_id) for s in snapshot.services.values()), *STRANGERS):
        for target in (*snapshot.services, "nobody"):
            decision = engine.decide_tcp(caller=caller, target=target)
            assert (decision.effect, decision.reason) == reference.decide_tcp(document, caller, target)
            assert decision == engine.decide_tcp(caller=caller, target=target)


@given(cases())
def test_nothing_is_allowed_without_an_allow_rule_except_probes(case):
    document, _, requests = case
    document.pop("allow", None)
    engine = Engine(parse_policy(to_files(document)))
    for request in requests:
        decision = ask(engine, request)
        assert not decision.is_allowed or decision.reason is Reason.PROBE


@given(cases())
def test_deny_wins_over_everything(case):
    document, _, requests = case
    document["deny"] = [{"from": "any", "to": "any"}]
    engine = Engine(parse_policy(to_files(document)))
    assert not any(ask(engine, request).is_allowed for request in requests)


@given(cases(), st.data())
def test_adding_an_allow_changes_no_other_edge(case, data):
    document, snapshot, requests = case
    doors = [(n, o.name) for n, s in snapshot.services.items() for o in s.operations]
    assume(doors)
    target, operation = data.draw(st.sampled_from(doors))
    caller = data.draw(st.sampled_from(sorted(snapshot.services)))
    rule = {"from": caller, "to": target, "operations": [operation]}
    wider = Engine(parse_policy(to_files({**document, "allow": [*document.get("allow", []), rule]})))
    before = Engine(snapshot)
    for request in requests:
        old, new = ask(before, request), ask(wider, request)
        is_edge = (
            request.caller == str(snapshot.services[caller].spiffe_id)
            and request.target == target
            and old.operation == operation
        )
        if not is_edge:
            assert (old.effect, old.reason, old.rule) == (new.effect, new.reason, new.rule)
        elif old.effect is not new.effect:
            assert old.reason is Reason.NO_RULE


@given(cases())
def test_an_ambiguous_path_is_refused_with_400_whatever_the_rules_say(case):
    document, _, requests = case
    for service in document["services"].values():
        if "tcp" not in service:
            service["operations"] = {**service.get("operations", {})}
            shapes = {
                reference._route(form)[1]
                for form in (*service["operations"].values(), *service.get("probes", []))
            }
            if not any("..." in template for template in shapes):
                service["operations"]["Everything"] = "GET /{everything...}"
            if not service["operations"]:
                del service["operations"]
    document["allow"] = [{"from": "any", "to": "any", "operations": "all"}]
    if not any(service.get("operations") for service in document["services"].values()):
        del document["allow"]
    snapshot = parse_policy(to_files(document))
    engine = Engine(snapshot)
    for request in requests:
        service = snapshot.services.get(request.target)
        if service is None or service.tcp is not None:
            continue
        routes = tuple(o.route for o in (*service.operations, *service.probes))
        decision = ask(engine, request)
        is_ambiguous = isinstance(classify_path(request.path, guarded_characters(routes)), AmbiguousPath)
        assert is_ambiguous == (decision.reason is Reason.AMBIGUOUS_PATH)
        assert not is_ambiguous or decision.status == 400


@given(cases())
def test_the_table_for_compilers_agrees_with_the_engine(case):
    _, snapshot, requests = case
    engine = Engine(snapshot)
    for request in requests:
        decision = ask(engine, request)
        service = snapshot.services.get(request.target)
        if service is None or service.tcp is not None:
            continue
        table = service_table(snapshot, request.target)
        path = request.path.split("?")[0]
        if decision.reason is Reason.AMBIGUOUS_PATH:
            assert path not in table.literal_index
            continue
        if path in table.literal_index:
            operation = table.literal_index[path].get(request.method)
        else:
            operation = next(
                (
                    o
                    for o in table.templates
                    if o.route.method == request.method
                    and reference.re.fullmatch(reference._regex(o.route.template), path)
                ),
                None,
            )
        assert decision.operation == (operation.name if operation else None)
        if operation is None:
            continue
        verdict = table.verdicts(operation.name).get(request.caller)
        if verdict is None:
            assert decision.reason is Reason.UNKNOWN_CALLER
        else:
            assert (verdict.effect, verdict.reason, verdict.rule) == (
                decision.effect,
                decision.reason,
                decision.rule,
            )


@given(policies())
def test_what_is_reachable_is_what_some_door_allows(snapshot):
    engine = Engine(snapshot)
    for caller in snapshot.services.values():
        spiffe_id = str(caller.spiffe_id)
        expected = []
        for name, service in sorted(snapshot.services.items()):
            doors = ["tcp"] if service.tcp else [o.name for o in (*service.operations, *service.probes)]
            if any(engine.decide_door(caller=spiffe_id, target=name, door=door).is_allowed for door in doors):
                expected.append(name)
        assert reachable_targets(snapshot, spiffe_id) == reachable_targets(snapshot, caller.name) == expected


@given(cases())
def test_every_request_is_explained(case):
    _, snapshot, requests = case
    engine = Engine(snapshot)
    for request in requests:
        explanation = engine.explain(
            caller=request.caller, target=request.target, method=request.method, path=request.path
        )
        assert explanation.decision == ask(engine, request)
        assert explanation.render().startswith(explanation.decision.effect.value)
        assert explanation.to_dict()["reason"] == explanation.decision.reason.value
        cited = {Reason.ALLOWED, Reason.DENIED_BY_RULE, Reason.PROBE}
        assert (explanation.rule is not None) == (explanation.decision.reason in cited)


@given(cases(), st.data())
def test_a_suggestion_allows_the_call_and_changes_nothing_else(case, data):
    document, snapshot, requests = case
    engine = Engine(snapshot)
    others = data.draw(st.lists(requests_for(snapshot), min_size=10, max_size=20))
    for request in requests:
        suggestion = engine.explain(
            caller=request.caller, target=request.target, method=request.method, path=request.path
        ).suggestion
        if suggestion is None:
            continue
        files = to_files(document)
        for edit in suggestion.edits:
            files[edit.span.file] = append_entry(files[edit.span.file], edit.path, edit.yaml)
        after = Engine(parse_policy(files))
        decided = ask(after, request)
        assert decided.is_allowed
        opened = {str(snapshot.services[name].spiffe_id) for name in suggestion.also_opens} | {request.caller}
        for other in (*requests, *others):
            old, new = ask(engine, other), ask(after, other)
            if new.target == request.target and new.operation == decided.operation and other.caller in opened:
                continue
            assert old.effect is new.effect
            assert old.rule == new.rule
            is_new_door = old.reason is Reason.UNKNOWN_OPERATION and new.operation == decided.operation
            assert old.reason is new.reason or is_new_door


@given(policies(), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.text(max_size=40))
def test_any_text_gets_an_answer(snapshot, caller, target, method, path):
    engine = Engine(snapshot)
    for name in (target, *snapshot.services):
        assert engine.decide(caller=caller, target=name, method=method, path=path).effect is Effect.DENY
        assert engine.decide_tcp(caller=caller, target=name).effect is Effect.DENY
