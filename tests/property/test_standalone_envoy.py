# SPDX-License-Identifier: Apache-2.0
"""The standalone Envoy of any policy: never wider than the engine, and with an authorizer exactly as wide."""

import json
from dataclasses import replace

from hypothesis import HealthCheck, given, settings, strategies as st
from tests.strategies import policies, requests_for
from tests.support.matchers import decide

from everyhop.authz import Engine
from everyhop.policy.targets import TargetSettings
from everyhop.targets import compile_policy
from everyhop.targets.intents import Intents
from everyhop.targets.view import View

ASKING = TargetSettings(options={"envoy": {"authorizer": "unix:/run/a.sock"}})


def filters(snapshot):
    (found,) = compile_policy(snapshot, ["envoy"])
    documents = {}
    for file in found.files:
        if file.path.endswith("bootstrap.json"):
            (listener,) = json.loads(file.content)["static_resources"]["listeners"]
            (chain,) = listener["filter_chains"]
            manager = chain["filters"][0]["typed_config"]
            policy = [one for one in manager.get("http_filters", ()) if one["name"] == "authz"]
            if policy:
                documents[file.path.split("/")[1]] = policy[0]["typed_config"]
    return documents


def asked(config, request, method):
    inputs = {
        "key": f"{method} {request.path.partition('?')[0]}",
        "caller": request.caller,
        "method": method,
    }
    name, action = decide(config, inputs)
    return action == "ALLOW", "+" in name


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_never_wider_than_the_engine(data):
    alone = data.draw(policies())
    asking = replace(alone, targets=ASKING)
    engine, view = Engine(alone), View(Intents(asking), "envoy")
    found, found_asking = filters(alone), filters(asking)
    for request in data.draw(st.lists(requests_for(alone), min_size=5, max_size=25)):
        method = request.method or "GET"
        if request.target not in found:
            continue
        decision = engine.decide(
            caller=request.caller, target=request.target, method=method, path=request.path
        )
        needs = decision.is_allowed and not is_plain(engine, alone, request, decision)
        passes, _ = asked(found[request.target], request, method)
        assert not passes or (decision.is_allowed and not needs), request
        passes, asks = asked(found_asking[request.target], request, method)
        assert not passes or asks or (decision.is_allowed and not needs), request
        # And no narrower, where the view opens the door.
        if decision.is_allowed and opened(view, request, decision):
            assert passes, request


def is_plain(engine, snapshot, request, decision):
    return engine.requirement(
        caller=request.caller, target=request.target, operation=decision.operation
    ).is_empty


def opened(view, request, decision):
    caller = view.intents.snapshot.service_of(request.caller).name
    doors = [one for one in view.intents.of(request.target).doors if one.name == decision.operation]
    return any(grant.caller == caller for door in doors for grant in view.grants(door))
