# SPDX-License-Identifier: Apache-2.0
"""Tokens on ``workload.sock`` and Envoy's questions on ``authz.sock``: real sockets, real peers, real tokens."""

import asyncio
import contextlib
import json
import os
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from tests.support.raw_grpc import RawGrpc
from tests.support.token_bench import STOREFRONT, THIEF, X5T, TokenBench

from everyhop.agent import Launch, LaunchRegistry, LaunchState, TokenCache, WorkloadService
from everyhop.api.ext_authz import ExternalAuthorization, authorization_server, denied, thumbprint_of
from everyhop.api.workload_api import workload_server
from everyhop.control.workload_tokens import WorkloadTokens
from everyhop.core.errors import InputError
from everyhop.providers.attestors import ProcInspector
from everyhop.wire.ext_authz import CHECK, CheckRequest, CheckResponse
from everyhop.wire.processes import ProcessRef, read_stat
from everyhop.wire.sockets import UnixListener
from everyhop.wire.tokens import (
    EXCHANGE,
    MINT,
    WATCH_CONTEXT,
    ContextUpdate,
    ExchangeRequest,
    ExchangeResponse,
    MintRequest,
    MintResponse,
    WatchContextRequest,
)

INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED = 3, 5, 7
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
TRANSACTION = "urn:ietf:params:oauth:token-type:txn_token"


class Node:
    """A node in this process, which is the launch of ``storefront`` and its own Envoy at once."""

    def __init__(self, directory):
        self.directory = directory
        self.bench = TokenBench(directory)

    async def start(self, stack):
        bench = self.bench
        stack.callback(bench.close)
        await bench.start()
        self.registry = stack.enter_context(
            contextlib.closing(LaunchRegistry(self.directory / "launches.json", changes=bench.changes))
        )
        inspector = stack.enter_context(contextlib.closing(ProcInspector()))
        self.workloads = WorkloadService(
            inspector=inspector,
            launches=self.registry,
            identities=bench.identities,
            tokens=TokenCache(control=None, clock=bench.clock),
            clock=bench.clock,
            changes=bench.changes,
        )
        self.workloads.apply_snapshot(bench.control.snapshot)
        tokens = WorkloadTokens(
            workloads=self.workloads,
            identities=bench.identities,
            launches=self.registry,
            tokens=bench.tokens,
            exchanger=bench.link,
            truth=bench.truth,
        )
        self.workload_sock, self.authz_sock = self.directory / "w.sock", self.directory / "a.sock"
        self.looked = []
        watch = SimpleNamespace(note=lambda texts, shown: self.looked.append((list(texts), shown)))
        checks = ExternalAuthorization(bench.credentials, self.registry, watch)
        for server, path in (
            (workload_server(self.workloads, tokens=tokens), self.workload_sock),
            (authorization_server(checks), self.authz_sock),
        ):
            listener = stack.enter_context(contextlib.closing(UnixListener.bind(path, mode=0o600)))
            await server.start(listener)
            stack.push_async_callback(server.close)
        self.launch()

    def launch(self, instance="i1", service="storefront"):
        ref = ProcessRef(pid=os.getpid(), start_time=read_stat(os.getpid()).start_time)
        self.registry.register(Launch(instance=instance, service=service, uid=os.getuid(), run=ref))
        self.registry.update(instance, envoy=ref)

    @property
    def x5t(self):
        return self.bench.identities.current(STOREFRONT).x5t

    async def ask(self, path, method, message, **options):
        def asking():
            with RawGrpc(path) as client:
                return client.ask(method, message.SerializeToString(), **options)

        return await asyncio.to_thread(asking)

    async def mint(self, **request):
        return await self.ask(self.workload_sock, MINT, MintRequest(**request))

    async def check(self, request, instance="i1", point="ingress"):
        metadata = (("x-everyhop-instance", instance), ("x-everyhop-point", point))
        return await self.ask(self.authz_sock, CHECK, request, metadata=metadata)


@pytest.fixture
async def node(tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        made = Node(tmp_path)
        await made.start(stack)
        yield made


# -- workload.sock, refused


async def test_the_security_header_is_required(node):
    for method, message in ((MINT, MintRequest()), (WATCH_CONTEXT, WatchContextRequest())):
        (outcome,) = await node.ask(node.workload_sock, method, message, metadata=())
        assert outcome[:2] == ("status", INVALID_ARGUMENT)


async def test_no_token_for_another_identity(node):
    other = "spiffe://shop.example/service/orders"
    (outcome,) = await node.mint(target="orders", x5t=node.x5t, spiffe_id=other)
    assert outcome[:2] == ("status", PERMISSION_DENIED)
    (outcome,) = await node.mint(target="orders", x5t=node.x5t, spiffe_id="no id")
    assert outcome[:2] == ("status", INVALID_ARGUMENT)


@pytest.mark.parametrize("x5t", ["", X5T, "x" * 5000])
async def test_no_token_for_a_certificate_that_is_not_its_own(node, x5t):
    (outcome,) = await node.mint(target="orders", x5t=x5t)
    assert outcome[:2] == ("status", PERMISSION_DENIED)


async def test_no_token_for_a_certificate_that_is_over(node):
    x5t = node.x5t
    node.bench.clock.move(hours=2)
    (outcome,) = await node.mint(target="orders", x5t=x5t)
    assert outcome[:2] == ("status", PERMISSION_DENIED)


async def test_nothing_beyond_the_policy(node):
    for request, status in (
        ({"target": "nowhere"}, NOT_FOUND),
        ({"target": "orders", "operation": "nothing"}, NOT_FOUND),
        ({"target": "orders", "scope": ["orders.cancel"]}, PERMISSION_DENIED),
        ({"target": "orders", "scope": ["orders.create", "orders.cancel"]}, PERMISSION_DENIED),
        ({"target": "orders", "scope": ["x"] * 300}, INVALID_ARGUMENT),
        ({"target": "thief"}, PERMISSION_DENIED),
        ({"target": ""}, NOT_FOUND),
    ):
        (outcome,) = await node.mint(x5t=node.x5t, **request)
        assert outcome[:2] == ("status", status), request


async def test_a_process_that_is_no_workload_gets_nothing(node):
    node.registry.remove("i1")
    (outcome,) = await node.mint(target="orders", x5t=node.x5t)
    assert outcome[:2] == ("status", PERMISSION_DENIED)
    (outcome,) = await node.ask(node.workload_sock, WATCH_CONTEXT, WatchContextRequest())
    assert outcome[:2] == ("status", PERMISSION_DENIED)


async def test_an_exchange_of_what_is_not_believed_tells_the_code(node):
    for token, code in (("x", "the subject token is not accepted"), (node.bench.mint(), "AUDIENCE_MISMATCH")):
        request = ExchangeRequest(
            subject_token=token, subject_token_type=ACCESS, target="orders", x5t=node.x5t
        )
        (outcome,) = await node.ask(node.workload_sock, EXCHANGE, request)
        assert outcome[:2] == ("status", INVALID_ARGUMENT)
        assert outcome[2].startswith(code)
    (outcome,) = await node.ask(node.workload_sock, EXCHANGE, ExchangeRequest(x5t=X5T, target="orders"))
    assert outcome[:2] == ("status", INVALID_ARGUMENT)


# -- workload.sock, given


async def test_a_workload_gets_tokens_of_its_own(node):
    outcome = await node.mint(target="orders", scope=["orders.create"], x5t=node.x5t)
    token = MintResponse.FromString(outcome[0][1])
    assert token.expires_at == int(node.bench.clock.now().timestamp()) + 300
    again = MintResponse.FromString((await node.mint(target="orders", scope=["create"], x5t=node.x5t))[0][1])
    assert again.token != token.token
    held = await node.mint(target="orders", scope=["orders.create"], x5t=node.x5t)
    assert MintResponse.FromString(held[0][1]).token == token.token


async def test_tokens_for_a_single_use_are_never_given_twice(node):
    given = set()
    for request in ({"operation": "pay"}, {"operation": "pay"}, {"operation": "pay", "scope": ["pay"]}):
        outcome = await node.mint(target="orders", x5t=node.x5t, **request)
        given.add(MintResponse.FromString(outcome[0][1]).token)
    assert len(given) == 3


async def test_an_exchange_narrows(node):
    key = node.bench.server.works.api_keys.create(owner="a", scopes=["storefront.browse"]).key
    request = ExchangeRequest(
        subject_token=key.reveal().decode(),
        subject_token_type="urn:everyhop:params:oauth:token-type:api_key",
        requested_token_type=TRANSACTION,
    )
    outcome = await node.ask(node.workload_sock, EXCHANGE, request)
    answer = ExchangeResponse.FromString(outcome[0][1])
    assert answer.issued_token_type == TRANSACTION
    wider = ExchangeRequest(
        subject_token=answer.token,
        subject_token_type=TRANSACTION,
        requested_token_type=TRANSACTION,
        scope=["storefront.hidden"],
    )
    (outcome,) = await node.ask(node.workload_sock, EXCHANGE, wider)
    assert outcome[:2] == ("status", PERMISSION_DENIED)


async def test_the_context_comes_at_once_and_after_each_change(node):
    client = await asyncio.to_thread(RawGrpc, node.workload_sock)
    try:
        client.open(WATCH_CONTEXT)

        async def document():
            kind, raw = (await asyncio.to_thread(client.next))[:2]
            assert kind == "message"
            return json.loads(ContextUpdate.FromString(raw).document)

        first = await document()
        assert (first["service"], first["spiffe_id"]) == ("storefront", str(STOREFRONT))
        assert first["issuer"] == "https://127.0.0.1:8443"
        assert first["targets"]["orders"]["ingress"] == []
        assert {o["name"]: (o["token"], o["once"]) for o in first["targets"]["orders"]["operations"]} == {
            "list": ("none", False),
            "create": ("service", False),
            "pay": ("operation", True),
            "mine": ("none", False),
            "ours": ("none", False),
        }
        browse = next(o for o in first["operations"] if o["name"] == "browse")
        assert browse["callers"] == {"outside": {"rule": "allow[4]", "user": "optional"}}
        node.bench.server.works.service.revoke(node.bench.mint(), asker="admin")
        await node.bench.push()
        second = await document()
        assert second["sequence"] > first["sequence"]
        assert len(second["revoked"]["jtis"]) == 1
        node.launch("i2", "orders")
        node.registry.update("i2", state=LaunchState.RUNNING, facts={"app": "unix"})
    finally:
        client.close()


# -- authz.sock


VERDICT = "0123456789abcdef|allowed+s|allow[0]"


def question(
    operation="create",
    caller=STOREFRONT,
    headers=(),
    path=b"/orders",
    certificate="",
    verdict=VERDICT,
    method="POST",
):
    request = CheckRequest()
    attributes = request.attributes
    attributes.source.principal = str(caller)
    attributes.source.certificate = certificate
    attributes.request.http.path = path
    for name, value in (("x-everyhop-decision", "d-1"), *headers):
        attributes.request.http.header_map.headers.add(key=name.encode(), raw_value=value.encode())
    metadata = attributes.metadata_context.filter_metadata["envoy.filters.http.rbac"]
    metadata.update({"shadow_effective_policy_id": operation, "enforced_effective_policy_id": verdict})
    attributes.request.http.method = method.encode()
    return request


def certificate_of(node):
    return quote(node.bench.identities.current(STOREFRONT).chain_pem.decode())


async def test_only_the_envoy_of_a_launch_is_answered(node):
    for instance in ("", "i2", "x" * 500):
        (outcome,) = await node.check(question(), instance=instance)
        assert outcome[:2] == ("status", PERMISSION_DENIED)
    ref = ProcessRef(pid=1, start_time=read_stat(1).start_time)
    node.registry.update("i1", envoy=ref)
    (outcome,) = await node.check(question())
    assert outcome[:2] == ("status", PERMISSION_DENIED)


def refusal_of(outcome):
    response = CheckResponse.FromString(outcome[0][1])
    assert response.WhichOneof("http_response") == "denied_response"
    body = json.loads(response.denied_response.body)
    headers = {h.header.key.decode(): h.header.value.decode() for h in response.denied_response.headers}
    assert set(body) == {"type", "title", "status", "code", "decision"}
    assert body["status"] == response.denied_response.status.code
    assert response.dynamic_metadata["code"] == body["code"]
    return body["status"], body["code"], headers.get("www-authenticate")


async def test_what_cannot_be_judged_is_refused_without_a_reason(node):
    node.launch("i3", "orders")
    for request, point in (
        (question(operation=""), "ingress"),
        (question(operation="nothing"), "ingress"),
        (question(caller=""), "ingress"),
        (question(certificate="not a certificate"), "ingress"),
        (question(), "nowhere"),
        (question(), "egress"),
        (CheckRequest(), "ingress"),
    ):
        outcome = await node.check(request, instance="i3", point=point)
        response = CheckResponse.FromString(outcome[0][1])
        assert response.denied_response.status.code == 503
        assert json.loads(response.denied_response.body)["code"] == "UNAVAILABLE"
        assert "certificate" not in response.denied_response.body


BARE = 'Bearer realm="everyhop"'
INVALID = f'{BARE}, error="invalid_token"'


@pytest.mark.parametrize(
    ("headers", "path", "expected"),
    [
        ((), b"/orders", (401, "MISSING_TOKEN", BARE)),
        ((), b"/orders?access_token=x", (401, "MISSING_TOKEN", BARE)),
        ((("authorization", "Bearer x"),), b"/orders", (401, "TOKEN_MALFORMED", INVALID)),
        ((("authorization", "Basic eDp5"),), b"/orders", (401, "TOKEN_MALFORMED", INVALID)),
        ((("authorization", "Bearer a, Bearer b"),), b"/", (401, "TOKEN_MALFORMED", INVALID)),
        (
            (("authorization", "Bearer a"), ("authorization", "Bearer a")),
            b"/",
            (401, "TOKEN_MALFORMED", INVALID),
        ),
        ((("authorization", "Bearer \xff"),), b"/\xff", (401, "TOKEN_MALFORMED", INVALID)),
        ((("txn-token", "a"), ("txn-token", "b")), b"/", (401, "TOKEN_MALFORMED", INVALID)),
    ],
)
async def test_refusals_on_the_wire(node, headers, path, expected):
    node.launch("i3", "orders")
    asked = question(headers=headers, path=path, certificate=certificate_of(node))
    assert refusal_of(await node.check(asked, instance="i3")) == expected
    shown = [value for name, value in headers if name == "authorization"]
    assert len(node.looked) == bool(shown)
    for texts, who in node.looked:
        assert not shown[0].isascii() or shown[0].rpartition(" ")[2].strip() in " ".join(texts)
        assert (who.where, who.caller, who.target) == ("ingress", str(STOREFRONT), "orders")


async def test_what_is_refused_at_an_edge_is_held_against_its_address_and_at_an_egress_is_nobodys(node):
    asked = question(operation="browse", headers=(("authorization", "Bearer eh_live_key_x"),))
    await node.check(asked, point="edge")
    ((texts, who),) = node.looked
    assert texts[0] == "eh_live_key_x"
    assert (who.where, who.caller) == ("edge", None)
    await node.check(question(operation="nothing", headers=(("authorization", "Bearer x"),)), point="egress")
    assert len(node.looked) == 1


@pytest.mark.parametrize("verdict", ["", "x", "a|b", "0123456789abcdef|allowed+sc|allow[9]", "a|b|c|d"])
async def test_a_sidecar_that_leaves_a_call_to_the_facts_has_them_decide(node, verdict):
    """The agent's policy may be a newer one, in which no rule lets this caller do this any more."""
    node.launch("i3", "orders")
    thief = {"caller": THIEF, "verdict": verdict}
    for asked, reason in (
        (question(operation="list", path=b"/orders", method="GET", **thief), "no-rule"),
        (question(operation="list", path=b"/orders", verdict=verdict), "unknown-operation"),
        (question(operation="list", path=b"/pay", method="GET", verdict=verdict), "unknown-operation"),
    ):
        outcome = await node.check(asked, instance="i3")
        assert refusal_of(outcome)[:2] == (403, "ACCESS_DENIED")
        why = CheckResponse.FromString(outcome[0][1]).dynamic_metadata["why"]
        assert why.startswith(f"{reason}|-|||")
    asked = question(operation="list", path=b"/orders", method="GET", verdict=verdict)
    response = CheckResponse.FromString((await node.check(asked, instance="i3"))[0][1])
    assert response.WhichOneof("http_response") == "ok_response"
    assert response.dynamic_metadata["why"].startswith("allowed|allow[0]|")
    assert "until" not in response.dynamic_metadata


async def test_a_good_token_passes_and_says_until_when(node):
    node.launch("i3", "orders")
    token = node.bench.mint(x5t=node.x5t)
    asked = question(headers=(("authorization", f"bearer {token}"),), certificate=certificate_of(node))
    response = CheckResponse.FromString((await node.check(asked, instance="i3"))[0][1])
    assert response.WhichOneof("http_response") == "ok_response"
    assert response.status.code == 0
    assert response.dynamic_metadata["until"] == int(node.bench.clock.now().timestamp()) + 300
    assert "txn-token" in response.ok_response.headers_to_remove


async def test_an_egress_gets_a_token_and_an_edge_is_refused(node):
    asked = CheckRequest()
    asked.attributes.context_extensions.update(
        {"target": "orders", "operation": "pay", "generation": node.x5t[:12]}
    )
    response = CheckResponse.FromString((await node.check(asked, point="egress"))[0][1])
    (option,) = response.ok_response.headers
    assert option.header.key == b"authorization"
    assert option.header.value.startswith(b"Bearer ey")
    assert not response.dynamic_metadata.fields
    asked = question(operation="browse", headers=(("authorization", "Bearer eh_live_key_x"),))
    assert refusal_of(await node.check(asked, point="edge")) == (401, "TOKEN_INVALID", INVALID)


def test_a_refusal_has_no_decision_where_none_was_named():
    assert "decision" not in json.loads(denied(503, "UNAVAILABLE", "").denied_response.body)


def test_a_certificate_is_pem():
    with pytest.raises(InputError):
        thumbprint_of("%00")
