# SPDX-License-Identifier: Apache-2.0
"""Facts and resources decide in the application: without its sidecar, and after it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest

from everyhop.authz import Extent, Resource
from everyhop.sdk import Guard, Peer, Refusal, Request, ServiceContext, authorize, require, serving, visible
from everyhop.testing import Authority, Issuer, context_document, verified_call

POLICY = """\
version: 1
trust_domain: shop.example
attributes:
  user: {department: string}
  resource: {owner: string, confidential: {type: bool, default: true}, department: string}
  request: {headers: [x-region]}
roles:
  reader: [orders.read, orders.list]
  admin: [orders.*]
services:
  storefront: {workload: [{run: true}]}
  reporting: {workload: [{run: true}]}
  stranger: {workload: [{run: true}]}
  other: {operations: {x: GET /x}}
  orders:
    workload: [{run: true}]
    operations:
      list: {route: GET /orders, resource: application}
      read: {route: "GET /orders/{id}", resource: application}
      own: "GET /users/{who}/orders"
      export: GET /export
      plain: GET /plain
    probes: [GET /healthz]
allow:
  - {from: any, to: other, operations: [x]}
  - {from: storefront, to: orders, operations: [list, read], user: required, when: "resource.owner == user.id"}
  - {from: storefront, to: orders, operations: [list, read], user: required, when: "'admin' in user.roles", id: admins}
  - {from: storefront, to: orders, operations: [own], user: required, when: "request.path_params.who == user.id"}
  - {from: reporting, to: orders, operations: [export], when: "request.headers['x-region'] == 'eu'"}
  - {from: reporting, to: orders, operations: [plain]}
deny:
  - from: any
    to: orders
    operations: [list, read]
    when: "resource.confidential && !in_cidr(request.source_ip, '10.0.0.0/8')"
directory:
  users: {dora: {roles: [admin]}}
"""
ID = "spiffe://shop.example/service/"
authority = Authority()
CERTIFICATES = {name: authority.issue(name) for name in ("storefront", "reporting", "stranger")}


class World:
    def __init__(self):
        self.issuer = Issuer()
        self.document = context_document(POLICY, "orders", self.issuer)
        self.context = ServiceContext.parse(self.document)
        self.decided = []
        self.guard = Guard(self, decisions=self.decided.append)

    def user(self, subject="ann", roles=("reader",), **more):
        return (b"txn-token", self.issuer.transaction(subject, roles=list(roles), **more).encode())

    def check(self, path, *headers, caller="storefront", via_sidecar=False, source="10.1.2.3"):
        peer = Peer(spiffe_id=ID + caller, x5t=CERTIFICATES[caller].x5t)
        if via_sidecar:
            headers = (*headers, (b"x-everyhop-caller", (ID + caller).encode()))
        return self.guard.check(
            Request(
                method="GET",
                raw_path=path,
                headers=list(headers),
                peer=None if via_sidecar else peer,
                via_sidecar=via_sidecar,
                source_ip=None if via_sidecar else source,
            )
        )

    def refused(self, *arguments, **named):
        with pytest.raises(Refusal) as caught:
            self.check(*arguments, **named)
        return caught.value.code, self.decided[-1].reason


@pytest.fixture
def world():
    return World()


# -- what the context says


def test_those_about_whom_facts_decide_are_no_callers(world):
    found = {one["name"]: one for one in json.loads(world.document)["operations"]}
    for name in ("list", "read", "own", "export"):
        assert not found[name]["callers"]
    assert set(found["own"]["deciding"]) == {ID + "storefront"}
    assert set(found["plain"]["callers"]) == {ID + "reporting"}
    assert found["list"]["resource"] == "application"
    assert found["own"]["resource"] is None


def test_a_reader_that_does_not_know_the_rules_denies(world):
    document = json.loads(world.document)
    del document["rules"]
    world.context = ServiceContext.parse(json.dumps(document).encode())
    assert world.refused(b"/users/ann/orders", world.user())[1] == "no-rules"
    for operation in document["operations"]:
        del operation["deciding"]
    world.context = ServiceContext.parse(json.dumps(document).encode())
    assert world.refused(b"/users/ann/orders", world.user())[1] == "no-rule"


def test_rules_that_do_not_read_deny(world):
    document = json.loads(world.document)
    document["rules"]["policy"]["hash"] = "0" * 64
    world.context = ServiceContext.parse(json.dumps(document).encode())
    assert world.refused(b"/users/ann/orders", world.user()) == ("UNAVAILABLE", "not-ready")


def test_other_services_doors_are_not_in_it(world):
    rules = json.loads(world.document)["rules"]["policy"]["policy"]
    assert "operations" not in rules["services"]["other"]
    assert {rule["to"][0] for rule in rules["allow"]} == {"orders"}
    assert world.context.rules.ids["allow[0]"] == "allow[1]"


# -- facts decide without a sidecar


@pytest.mark.parametrize(
    ("path", "headers", "caller", "reason"),
    [
        (b"/users/bob/orders", [], "storefront", "user-required"),
        (b"/users/bob/orders", ["user"], "storefront", "condition-false"),
        (b"/users/%FF/orders", ["user"], "storefront", "condition-error"),
        (b"/users/ann/orders?who=bob", ["user", "user"], "storefront", "token-malformed"),
        (b"/users/ann/orders", ["stranger"], "storefront", "user-not-permitted"),
        (b"/export", [], "reporting", "condition-error"),
        (b"/export", ["us"], "reporting", "condition-false"),
        (b"/export", ["eu", "eu"], "reporting", "condition-error"),
        (b"/export", ["eu", "us"], "reporting", "condition-error"),
        (b"/export", ["bytes"], "reporting", "condition-error"),
        (b"/export", ["eu"], "stranger", "no-rule"),
        (b"/orders", ["user"], "stranger", "no-rule"),
    ],
)
def test_facts_refuse(world, path, headers, caller, reason):
    known = {
        "user": world.user(roles=("reader", "admin")),
        "stranger": world.user(roles=()),
        "eu": (b"X-Region", b"eu"),
        "us": (b"x-region", b"us"),
        "bytes": (b"x-region", b"\xff"),
    }
    assert world.refused(path, *(known[name] for name in headers), caller=caller)[1] == reason


def test_a_key_is_nobody(world):
    token = world.issuer.transaction("key-1", kind="client")
    assert world.refused(b"/users/key-1/orders", (b"txn-token", token.encode()))[0] == "USER_REQUIRED"


def test_facts_allow(world):
    verified = world.check(b"/users/ann/orders", world.user(roles=["admin"]))
    assert (verified.operation, verified.rule, verified.user.subject) == ("own", "allow[3]", "ann")
    assert world.check(b"/export", (b"x-region", b"eu"), caller="reporting").rule == "allow[4]"
    # roles of the directory count as they do at a sidecar
    assert world.check(b"/users/dora/orders", world.user("dora", roles=())).user.subject == "dora"


def test_what_its_own_sidecar_decided_is_not_decided_again(world):
    verified = world.check(b"/export", caller="reporting", via_sidecar=True)
    assert (verified.operation, verified.rule) == ("export", None)


# -- the resource


def test_a_call_passes_where_some_resource_may_be_allowed(world):
    assert world.check(b"/orders/7", world.user()).owes_authorization
    # without any condition left that could hold, it does not
    assert world.refused(b"/orders/7", world.user(roles=()))[1] == "user-not-permitted"
    assert world.refused(b"/orders/7", caller="storefront")[0] == "USER_REQUIRED"


@pytest.mark.parametrize(
    ("resource", "source"),
    [
        ({"owner": "bob", "confidential": False}, "10.1.2.3"),
        ({"confidential": False}, "10.1.2.3"),
        ({"owner": None, "confidential": False}, "10.1.2.3"),
        ({"owner": "ann"}, "192.0.2.1"),  # confidential by default
        ({"owner": "ann", "confidential": True}, "192.0.2.1"),
        ({"owner": "ann"}, None),
        ({"owner": "ann"}, "nonsense"),
        ({"owner": ["ann"], "confidential": False}, "10.1.2.3"),
        ({"owner": "ann", "confidential": 0}, "10.1.2.3"),
        ({}, "10.1.2.3"),
        (None, "10.1.2.3"),
    ],
)
def test_a_resource_is_refused(world, resource, source):
    with serving(world.check(b"/orders/7", world.user(), source=source)) as verified:
        with pytest.raises(Refusal) as caught:
            authorize(resource=resource, type="order")
        assert (caught.value.status, caught.value.decision_id) == (403, verified.decision_id)
        decided = world.decided[-1]
        assert (decided.allowed, decided.operation, decided.user) == (False, "read", "ann")
        assert decided.decision_id == verified.decision_id
        assert not visible(type="order").allows(Resource(type="order", attributes=resource or {}))


@pytest.mark.parametrize("via_sidecar", [False, True])
def test_a_resource_is_allowed(world, via_sidecar):
    source = ((b"x-everyhop-source", b"10.9.9.9"),) if via_sidecar else ()
    with serving(world.check(b"/orders/7", world.user(), *source, via_sidecar=via_sidecar)) as verified:
        assert authorize(resource={"id": 7, "owner": "ann"}, type="order") is verified
        assert not verified.owes_authorization
        assert require("read", resource={"owner": "ann"}) is verified
        with pytest.raises(Refusal):
            require("list", resource={"owner": "ann"})
        with pytest.raises(Refusal):
            require("read", resource={"owner": "bob"})
    assert {(one.rule, one.reason) for one in world.decided if one.rule} >= {("allow[1]", "allowed")}


def test_a_sidecars_word_counts_on_its_own_socket_only(world):
    forged = (b"x-everyhop-source", b"10.9.9.9")
    for verified in (
        world.check(b"/orders/7", world.user(), forged, source="192.0.2.1"),
        world.check(b"/orders/7", world.user(), forged, forged, via_sidecar=True),
    ):
        with serving(verified), pytest.raises(Refusal):
            authorize(resource={"owner": "ann"})


def test_another_operation_is_asked_for_without_this_ones_path(world):
    with serving(world.check(b"/orders/ann", world.user(roles=("admin",)))):
        authorize("list", resource={"owner": "bob"})
        for name in ("own", "export", "plain", "nothing"):
            with pytest.raises(Refusal):
                authorize(name, resource={"owner": "ann"})


def test_visible_filters(world):
    with serving(world.check(b"/orders", world.user())) as verified:
        found = visible(type="order")
        assert not verified.owes_authorization
        assert found.extent is Extent.SOME
        assert found.allows(Resource(type="order", attributes={"owner": "ann"}))
        assert not found.allows(Resource(type="order", attributes={"owner": "bob"}))
        assert not found.allows(Resource(type="bill", attributes={"owner": "ann"}))
    assert world.decided[-1].allowed
    with serving(world.check(b"/orders", world.user("dora", roles=()))):
        assert visible().extent is Extent.ALL


def test_nothing_is_authorized_outside_of_a_verified_call(world):
    for ask in (authorize, visible, lambda: require("read", resource={})):
        with pytest.raises(Refusal):
            ask()
        with serving(verified_call("read")), pytest.raises(Refusal, match="nothing to decide by"):
            ask()


def test_a_check_in_another_thread_counts(world):
    verified = world.check(b"/orders/7", world.user())

    def work():
        with serving(verified):
            authorize(resource={"owner": "ann"})

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not verified.owes_authorization


PLAIN = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  orders: {workload: [{run: true}], operations: {list: GET /orders, mine: GET /mine}}
allow:
  - {from: storefront, to: orders, operations: [list]}
  - {from: storefront, to: orders, operations: [mine], user: required}
"""


def test_a_policy_without_conditions_decides_by_its_callers(world):
    world.context = ServiceContext.parse(context_document(PLAIN, "orders", world.issuer))
    assert world.context.rules is None
    with serving(world.check(b"/orders")) as verified:
        assert authorize(resource={"id": "1"}) is verified
        assert visible().extent is Extent.ALL
        for name in ("mine", "nothing"):
            with pytest.raises(Refusal):
                authorize(name)
            with pytest.raises(Refusal):
                visible(name)


def test_rules_that_do_not_read_refuse_the_check(world):
    document = json.loads(world.document)
    document["rules"]["policy"]["hash"] = "0" * 64
    world.context = ServiceContext.parse(json.dumps(document).encode())
    verified = world.check(b"/orders/7", world.user(), via_sidecar=True)
    for ask in (lambda: authorize(resource={"owner": "ann"}), visible):
        with serving(verified), pytest.raises(Refusal) as caught:
            ask()
        assert caught.value.status == 503
    assert verified.owes_authorization


def test_without_a_condition_no_cel_is_loaded():
    program = f"""
import sys
from everyhop.sdk import Guard, Peer, Request, authorize, serving
from everyhop.testing import Issuer, service_context
context = service_context({PLAIN!r}, "orders", Issuer())
request = Request(method="GET", raw_path=b"/orders", headers=[], peer=Peer(spiffe_id={ID + "storefront"!r}))
with serving(Guard(context, decisions=print).check(request)):
    authorize(resource={{"id": 1}})
assert "cel_expr_python" not in sys.modules, "CEL"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
