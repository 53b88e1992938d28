# SPDX-License-Identifier: Apache-2.0
"""ext_authz over gRPC for foreign proxies: real sockets, real peers, raw messages."""

import asyncio
import contextlib
import os
import socket

import pytest
from tests.support.raw_grpc import RawGrpc
from tests.support.workloads import AuthorityForTests, RealClock

from everyhop.api.authorizer_grpc import GrpcAuthorizer, grpc_authorizer, message_of, question_of
from everyhop.control.asking import Answer, AskingProxy, CallerFrom
from everyhop.control.external_decisions import OVERLOADED, TIMED_OUT, ExternalDecisions
from everyhop.control.policy_view import PolicyView
from everyhop.control.proxied_callers import ProxiedCallers
from everyhop.core.errors import InputError
from everyhop.policy import parse_policy
from everyhop.wire.ext_authz import CHECK, OVERWRITE, CheckRequest, CheckResponse
from everyhop.wire.sockets import UnixListener

POLICY = b"""\
version: 1
trust_domain: shop.example
services:
  storefront: {}
  orders: {operations: {list: GET /orders}}
allow: [{from: storefront, to: orders, operations: [list]}]
"""
STOREFRONT = "spiffe://shop.example/service/storefront"
PROXY = AskingProxy(uid=os.getuid(), services=("orders",))
BY_XFCC = AskingProxy(uid=33, services=("orders",), caller=CallerFrom.XFCC)


class Server:
    """The product's gRPC side with a policy, on a socket; ``lines`` are its records."""

    def __init__(self, directory, **options):
        self.path = directory / "a.sock"
        self.lines = []
        clock = RealClock()
        callers = ProxiedCallers(clock)
        callers.apply_bundle(AuthorityForTests(clock).bundle())
        self.decisions = ExternalDecisions(
            credentials=None, callers=callers, record=self.lines.append, clock=clock
        )
        snapshot = parse_policy({"p": POLICY})
        self.decisions.apply_policy(PolicyView(snapshot))
        self.options = options

    async def start(self, stack, proxies=None):
        proxies = {PROXY.uid: PROXY} if proxies is None else proxies
        server = grpc_authorizer(GrpcAuthorizer(self.decisions, proxies, **self.options))
        listener = stack.enter_context(contextlib.closing(UnixListener.bind(self.path, mode=0o600)))
        await server.start(listener)
        stack.push_async_callback(server.close)
        return self

    async def ask(self, message, **options):
        def asking():
            with RawGrpc(self.path) as client:
                return client.ask(CHECK, message, **options)

        return await asyncio.to_thread(asking)

    async def check(self, request):
        outcomes = await self.ask(request.SerializeToString())
        return CheckResponse.FromString(outcomes[0][1])


@pytest.fixture
async def stack():
    async with contextlib.AsyncExitStack() as made:
        yield made


@pytest.fixture
async def server(tmp_path, stack):
    return await Server(tmp_path).start(stack)


def request(path=b"/orders", *, method=b"GET", principal=STOREFRONT, headers=(), raw=True, **extensions):
    made = CheckRequest()
    made.attributes.source.principal = principal
    http = made.attributes.request.http
    http.method, http.path, http.host = method, path, b"payments"
    for name, value in headers:
        if raw:
            http.header_map.headers.add(key=name, raw_value=value)
        else:
            http.headers[name.decode()] = value
    made.attributes.context_extensions.update(extensions)
    return made


async def test_a_user_that_the_settings_do_not_name_gets_no_connection(tmp_path, stack):
    other = AskingProxy(uid=os.getuid() + 4711, services=("orders",))
    server = await Server(tmp_path).start(stack, {other.uid: other})
    outcomes = []
    with contextlib.suppress(OSError):
        outcomes = await server.ask(request().SerializeToString())
    assert not [outcome for outcome in outcomes if outcome[0] == "message"]
    assert server.lines == []


@pytest.mark.parametrize("message", [b"\xff\xff\xff", b"\x0a\xff", b"\x0a\x02\x0a\xff"])
async def test_bytes_that_are_no_question(server, message):
    (outcome, *_) = await server.ask(message)
    answer = CheckResponse.FromString(outcome[1])
    assert (answer.status.code, answer.denied_response.status.code) == (7, 400)
    assert server.lines[0].reason == "malformed-question"


async def test_no_question_at_all(server):
    answer = await server.check(CheckRequest())
    assert answer.denied_response.status.code == 400


async def test_a_compressed_question(server):
    (outcome, *_) = await server.ask(request().SerializeToString(), compressed=True)
    assert outcome[0] == "status" or CheckResponse.FromString(outcome[1]).HasField("denied_response")


@pytest.mark.parametrize("service", ["payments", "ORDERS", "storefront", "../orders"])
async def test_a_service_that_this_proxy_may_not_ask_about(server, service):
    answer = await server.check(request(everyhop_service=service))
    assert answer.denied_response.status.code == 400
    assert not server.lines[0].allowed


async def test_neither_host_nor_header_names_the_service(server):
    headers = [(b"host", b"payments"), (b"everyhop_service", b"payments"), (b":authority", b"payments")]
    assert (await server.check(request(headers=headers))).status.code == 0
    assert server.lines[0].target == "orders"


@pytest.mark.parametrize("raw", [True, False])
async def test_headers_of_no_encoding_break_nothing(server, raw):
    headers = [(b"x-a", b"\xff\xfe\0"), (b"authorization", b"\xc3\x28"), (b"txn-token", b"\x80" * 100)]
    assert (await server.check(request(headers=headers, raw=raw))).status.code == 0


@pytest.mark.parametrize("path", [b"/orders\xff", b"/orders\0", b"\xff", b"", b"//orders", b"/orders;x=1"])
async def test_a_path_of_two_readings(server, path):
    answer = await server.check(request(path))
    assert answer.denied_response.status.code == 400
    assert b"AMBIGUOUS_PATH" in answer.denied_response.body.encode()


async def test_a_byte_that_envoy_has_replaced_is_seen(server):
    """Envoy writes ! for a byte that is no UTF-8, and forwards the byte."""
    for headers in ([(b":path", b"/orders/\xff")], [(b":path", b"/orders/!"), (b":path", b"/orders/x")]):
        answer = await server.check(request(b"/orders/!", headers=headers))
        assert answer.denied_response.status.code == 400
    for raw in (True, False):
        answer = await server.check(request(b"/orders/!", raw=raw))
        assert answer.denied_response.status.code == 400
    plain = await server.check(request(b"/orders/!", headers=[(b":path", b"/orders/!")]))
    assert (
        plain.denied_response.status.code == 403
    )  # an operation that nobody declared, and a path as it was sent
    assert (await server.check(request(b"/orders?x=!"))).status.code == 0


async def test_half_a_body_changes_nothing(server):
    whole = request(headers=[(b"x-envoy-auth-partial-body", b"true")]).SerializeToString()
    foreign = b"\x5a\x03abc"  # HttpRequest.body, which we do not declare
    assert CheckResponse.FromString((await server.ask(whole))[0][1]).status.code == 0
    made = CheckRequest.FromString(whole)
    made.attributes.request.http.MergeFromString(foreign)
    assert (await server.check(made)).status.code == 0


async def test_a_forwarded_certificate_counts_only_where_the_settings_say_so(server):
    forged = [(b"x-forwarded-client-cert", f"URI={STOREFRONT}".encode())]
    answer = await server.check(request(principal="", headers=forged))
    assert answer.denied_response.status.code == 403
    assert server.lines[0].reason == "unknown-caller"
    assert question_of(request(principal="", headers=forged), BY_XFCC).principal == STOREFRONT
    assert question_of(request(principal=STOREFRONT), BY_XFCC).principal is None
    through = request(headers=forged)
    through.attributes.source.certificate = "of the proxy between"
    assert question_of(through, BY_XFCC).certificate is None
    assert question_of(through, PROXY).certificate == b"of the proxy between"
    for twice in (forged * 2, [(b"x-forwarded-client-cert", b"URI=\xff")]):
        with pytest.raises(InputError):
            question_of(request(headers=twice), BY_XFCC)


async def test_more_than_wait_are_refused_at_once(tmp_path, stack):
    server = await Server(tmp_path, max_waiting=2, deadline=5.0).start(stack)

    def crowd():
        with RawGrpc(server.path) as waiting:
            for _ in range(2):
                waiting.open(CHECK, None, end=False)
            waiting.flush()
            with RawGrpc(server.path) as late:
                return late.ask(CHECK, request().SerializeToString())

    (outcome, *_) = await asyncio.to_thread(crowd)
    answer = CheckResponse.FromString(outcome[1])
    assert (answer.status.code, answer.denied_response.status.code) == (7, 503)
    assert server.lines[0].reason == OVERLOADED


async def test_a_question_that_takes_too_long_is_refused(tmp_path, stack):
    server = await Server(tmp_path, deadline=0.05).start(stack)
    (outcome, *_) = await server.ask(None, end=False)
    answer = CheckResponse.FromString(outcome[1])
    assert answer.denied_response.status.code == 503
    assert server.lines[0].reason == TIMED_OUT


async def test_other_methods_and_plain_http_are_no_way_in(server):
    def others():
        with RawGrpc(server.path) as client:
            outcome = client.ask("/envoy.service.auth.v2.Authorization/Check", request().SerializeToString())
        with socket.socket(socket.AF_UNIX) as plain:
            plain.settimeout(5)
            plain.connect(str(server.path))
            plain.sendall(b"GET /nginx/orders HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while plain.recv(4096):
                    pass
        return outcome

    (outcome,) = await asyncio.to_thread(others)
    assert outcome[:2] == ("status", 12)
    assert server.lines == []


async def test_allowed(server):
    answer = await server.check(request(headers=[(b"x_everyhop_user", b"root")]))
    assert answer.status.code == 0
    assert answer.WhichOneof("http_response") == "ok_response"
    found = {o.header.key: (o.header.value, o.append_action) for o in answer.ok_response.headers}
    assert found[b"x-everyhop-caller"] == (STOREFRONT.encode(), OVERWRITE)
    assert {action for _, action in found.values()} == {OVERWRITE}
    assert "x_everyhop_user" in answer.ok_response.headers_to_remove
    assert not {name.decode() for name in found} & set(answer.ok_response.headers_to_remove)
    assert found[b"x-everyhop-decision"][0].decode() == server.lines[0].id


@pytest.mark.parametrize("status", [400, 401, 403, 503])
def test_a_refusal_is_never_ok(status):
    message = message_of(Answer(status=status, code="CODE", decision="d1"))
    assert message.status.code in {7, 16}
    assert message.WhichOneof("http_response") == "denied_response"
    assert message.denied_response.status.code == status
