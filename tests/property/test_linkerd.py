# SPDX-License-Identifier: Apache-2.0
"""What Linkerd lets through under our objects is what the policy allows, whatever the age of the routes."""

from hypothesis import given, strategies as st
from tests.strategies import policies, requests_for
from tests.support.crds import objects_of
from tests.support.linkerd_mesh import Client, LinkerdMesh

from everyhop.authz import Engine
from everyhop.targets.compiling import compile_policy

WEBDAV = {"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH"}
STRANGERS = (
    None,
    "alpha.other.serviceaccount.identity.linkerd.shop.example",
    "alpha.default.serviceaccount.identity.linkerd.other.example",
    "xalpha.default.serviceaccount.identity.linkerd.shop.example",
    "default.serviceaccount.identity.linkerd.shop.example",
    "",
)


def identity(name):
    return f"{name}.default.serviceaccount.identity.linkerd.shop.example"


@st.composite
def worlds(draw):
    snapshot = draw(policies())
    return snapshot, draw(st.lists(requests_for(snapshot), min_size=1, max_size=15)), draw(st.booleans())


@given(worlds())
def test_linkerd_decides_as_the_engine_does(world):
    snapshot, requests, is_reversed = world
    (compiled,) = compile_policy(snapshot, ["linkerd"])
    assert not compiled.failed, compiled.diagnostics
    is_narrower = any(one.code == "linkerd.encoded-characters" for one in compiled.diagnostics)
    mesh = LinkerdMesh(list(objects_of(file.content for file in compiled.files)), is_reversed=is_reversed)
    engine = Engine(snapshot)
    names = {str(one.spiffe_id): one.name for one in snapshot.services.values()}
    for request in requests:
        service = snapshot.services.get(request.target)
        if service is None:
            continue
        labels = {"app": service.name}
        if service.tcp is not None:
            for caller, name in names.items():
                allowed = engine.decide_tcp(caller=caller, target=service.name).is_allowed
                client = Client(identity=identity(name))
                assert mesh.admits_connection("default", labels, service.tcp, client) == allowed
            for stranger in STRANGERS:
                assert not mesh.admits_connection("default", labels, service.tcp, Client(identity=stranger))
            continue
        call = {"method": request.method, "path": request.path}
        if request.caller in names:
            allowed = engine.decide(caller=request.caller, target=service.name, **call).is_allowed
            client = Client(identity=identity(names[request.caller]))
            if "%" in request.path and is_narrower:
                allowed = allowed and mesh.admits_call("default", labels, 8080, client, **call)
            assert mesh.admits_call("default", labels, 8080, client, **call) == allowed, (request, service)
        for stranger in STRANGERS:
            assert not mesh.admits_call("default", labels, 8080, Client(identity=stranger), **call)
