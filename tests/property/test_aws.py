# SPDX-License-Identifier: Apache-2.0
"""Cedar under our statements never permits what the engine refuses, and misses only what is said to be missed."""

import json

import cedarpy
from hypothesis import Phase, given, settings, strategies as st
from tests.strategies import policy_documents, requests_for, to_files

from everyhop.authz import Context, Engine, User
from everyhop.policy import Protocol, parse_policy
from everyhop.targets.aws.cedar import has_form
from everyhop.targets.compiling import compile_policy


@st.composite
def worlds(draw):
    document = draw(policy_documents())
    http = [name for name, entry in document["services"].items() if entry.get("operations")]
    document["allow"] = [
        {
            "from": "outside",
            "to": name,
            "operations": draw(
                st.lists(
                    st.sampled_from(sorted(document["services"][name]["operations"])), min_size=1, unique=True
                )
            ),
            "user": "optional",
        }
        for name in http
    ]
    if not document["allow"]:
        document.pop("allow")
    document.pop("deny", None)
    document["users"] = {"issuers": [{"issuer": "https://idp.example", "audience": "shop"}]}
    document["targets"] = {"aws": {"application_domain": "apps.example"}}
    shut = parse_policy(to_files({key: part for key, part in document.items() if key != "allow"}))
    return parse_policy(to_files(document)), draw(st.lists(requests_for(shut), min_size=5, max_size=25))


@settings(phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(worlds())
def test_cedar_is_never_wider_than_the_engine(world):
    snapshot, requests = world
    engine = Engine(snapshot)
    (compiled,) = compile_policy(snapshot, ["aws"])
    files = {file.path: json.loads(file.content) for file in compiled.files}
    document = files.get("aws/verified_access.tf.json")
    resources = {} if document is None else document["resource"]
    policy = None
    if resources:
        policy = resources["aws_verifiedaccess_group"]["everyhop"]["policy_document"]
        policy = policy.replace("$${", "${").replace("%%{", "%{")
    context = Context(user=User(id="u", issuer="https://idp.example"))
    for request in requests:
        path = request.path.partition("?")[0]
        if not path.isascii():
            continue
        call = {"target": request.target, "method": request.method, "path": path}
        allowed = engine.decide(caller="outside", context=context, **call).is_allowed
        spelt = engine.decide(
            caller="outside",
            context=context,
            **{**call, "path": path if path.startswith("/") else f"/{path}"},
        ).is_allowed  # Verified Access may leave the first slash away
        asked = {"http_method": request.method, "path": path, "hostname": f"{request.target}.apps.example"}
        permitted = policy is not None and permits(policy, asked)
        assert spelt or not permitted, (request, policy)
        door = engine.find(request.target, request.method, path)
        if allowed and door is not None and door.operation is not None and "%" not in path:
            is_http = door.operation.protocol is Protocol.HTTP
            assert permitted == (is_http and has_form(door.operation.route)) or not is_exact(engine, request)


def is_exact(engine, request):
    """No route that Cedar can only take away too widely (a parameter before a rest) comes near."""
    operations = engine.snapshot.services[request.target].operations
    return all(has_form(one.route) for one in operations)


def permits(policy, asked):
    request = {
        "principal": 'U::"u"',
        "action": 'A::"a"',
        "resource": 'R::"r"',
        "context": {"http_request": asked},
    }
    return cedarpy.is_authorized(request, policy, []).allowed
