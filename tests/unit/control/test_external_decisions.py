# SPDX-License-Identifier: Apache-2.0
"""Questions of foreign proxies: refused first; a record for each, and never an allow without one."""

import msgspec
import pytest
from tests.support.token_bench import POLICY, STOREFRONT, THIEF, X5T, TokenBench

from everyhop.authz import Engine
from everyhop.control.asking import AskingProxy, Form, Presented, Question
from everyhop.control.credentials import ROLES_HEADER, TXN_HEADER, USER_HEADER
from everyhop.control.external_decisions import (
    FAILED,
    MALFORMED,
    NOT_PERMITTED,
    OVERLOADED,
    ExternalDecisions,
    lines_of,
)
from everyhop.control.policy_view import PolicyView
from everyhop.control.proxied_callers import ProxiedCaller, ProxiedCallers
from everyhop.core.errors import InputError, TokenError, Unavailable
from everyhop.dataplane.log_lines import record_of
from everyhop.policy import parse_policy
from everyhop.tokens.codes import TokenCode

PROXY = AskingProxy(uid=33, services=("orders",))
SOCKETS = POLICY.replace("list: GET /orders", 'list: GET /orders\n      live: {websocket: "/live"}').replace(
    "[list, create, pay]", "[list, create, pay, live]"
)


class Bench:
    def __init__(self, tokens):
        self.tokens = tokens
        self.lines = []
        self.disk_is_full = False
        self.callers = ProxiedCallers(tokens.clock)
        self.callers.apply_bundle(tokens.authority.bundle())
        self.decisions = ExternalDecisions(
            credentials=tokens.credentials, callers=self.callers, record=self.record, clock=tokens.clock
        )
        self.apply(tokens.control.snapshot)

    def apply(self, snapshot):
        self.decisions.apply_policy(PolicyView(snapshot))

    def record(self, line):
        if self.disk_is_full:
            raise Unavailable("the disk is full")
        self.lines.append(line)

    async def ask(self, method="GET", path="/orders", *, proxy=PROXY, **more):
        values = {
            "form": Form.ENVOY,
            "target": "orders",
            "method": method,
            "path": path,
            "principal": str(STOREFRONT),
        }
        question = Question(**{**values, **more})
        return await self.decisions.answer(proxy, Form.ENVOY, lambda: question)


@pytest.fixture
async def bench(tmp_path):
    tokens = TokenBench(tmp_path)
    await tokens.start()
    yield Bench(tokens)
    tokens.close()


@pytest.mark.parametrize(
    ("question", "status", "reason"),
    [
        ({"path": "//orders"}, 400, "ambiguous-path"),
        ({"path": "/orders/../orders"}, 400, "ambiguous-path"),
        ({"path": "/%6frders"}, 400, "ambiguous-path"),
        ({"path": "/orders\xff"}, 400, "ambiguous-path"),
        ({"path": ""}, 400, "ambiguous-path"),
        ({"path": "*"}, 400, "ambiguous-path"),
        ({"path": "http://orders/orders"}, 400, "ambiguous-path"),
        ({"path": "/nothing"}, 403, "unknown-operation"),
        ({"method": "get"}, 403, "unknown-operation"),
        ({"method": ""}, 403, "unknown-operation"),
        ({"method": "POST", "path": "/cancel"}, 403, "no-rule"),
        ({"principal": "outside"}, 403, "unknown-caller"),
        ({"principal": "unknown"}, 403, "unknown-caller"),
        ({"principal": None}, 403, "unknown-caller"),
        ({"principal": "spiffe://shop.example/service/nobody"}, 403, "unknown-caller"),
        ({"principal": f"{STOREFRONT},{THIEF}"}, 403, "unknown-caller"),
        ({"principal": str(THIEF)}, 403, "no-rule"),
        ({"certificate": b"no certificate"}, 403, "unknown-caller"),
        ({"target": "storefront"}, 403, NOT_PERMITTED),
        ({"headers": ((b"Upgrade", b"websocket"),)}, 403, "unknown-operation"),
        ({"headers": ((b"upgrade", b"h2c"),)}, 403, "unknown-operation"),
    ],
)
async def test_refused_and_recorded(bench, question, status, reason):
    answer = await bench.ask(**question)
    assert (answer.status, answer.headers, answer.remove) == (status, {}, ())
    (line,) = bench.lines
    assert (line.id, line.reason, line.status, line.allowed) == (answer.decision, reason, status, False)


async def test_an_outside_caller_is_nobody_even_where_outside_may_call(bench):
    proxy = AskingProxy(uid=33, services=("storefront",))
    for principal in ("outside", None):
        answer = await bench.ask(path="/plain", target="storefront", principal=principal, proxy=proxy)
        assert answer.status == 403


async def test_a_question_that_cannot_be_read(bench):
    def read():
        raise InputError("two of them")

    answer = await bench.decisions.answer(PROXY, Form.NGINX, read)
    assert (answer.status, answer.code) == (400, "MALFORMED_QUESTION")
    (line,) = bench.lines
    assert (line.reason, line.why, line.form, line.target) == (MALFORMED, "two of them", "nginx", None)


async def test_before_policy_and_bundle_are_there(bench):
    fresh = ExternalDecisions(
        credentials=bench.tokens.credentials,
        callers=bench.callers,
        record=bench.record,
        clock=bench.tokens.clock,
    )
    question = Question(
        form=Form.ENVOY, target="orders", method="GET", path="/orders", principal=str(STOREFRONT)
    )
    assert (await fresh.answer(PROXY, Form.ENVOY, lambda: question)).status == 503
    bench.callers._bundle = None
    assert (await bench.ask()).status == 503
    assert [line.reason for line in bench.lines] == [FAILED, FAILED]


async def test_a_fault_of_ours_refuses(bench, monkeypatch, caplog):
    monkeypatch.setattr(Engine, "decide", lambda *_, **__: 1 / 0)
    answer = await bench.ask()
    assert (answer.status, answer.code) == (503, "CHECK_UNAVAILABLE")
    assert "ZeroDivisionError" in caplog.text
    assert "Zero" not in str(answer.problem())


async def test_what_cannot_be_recorded_is_not_allowed(bench):
    assert (await bench.ask()).status == 200
    bench.disk_is_full = True
    answer = await bench.ask()
    assert (answer.status, answer.decision, answer.headers) == (503, "", {})
    refused = await bench.ask(path="/nothing")
    assert (refused.status, refused.decision) == (403, "")


async def test_too_many(bench):
    answer = bench.decisions.refuse(PROXY, Form.ENVOY, OVERLOADED)
    assert (answer.status, answer.code) == (503, "CHECK_UNAVAILABLE")
    assert bench.lines[0].reason == OVERLOADED


@pytest.mark.parametrize(
    ("shown", "code"),
    [
        (Presented(), TokenCode.MISSING_TOKEN),
        (Presented(token="x"), TokenCode.TOKEN_MALFORMED),
    ],
)
async def test_a_token_is_asked_for_as_at_a_sidecar(bench, shown, code):
    answer = await bench.ask("POST", presented=lambda: shown)
    assert (answer.status, answer.code, bench.lines[0].reason) == (401, code, code)
    assert answer.authenticate.startswith("Bearer")


async def test_a_bound_token_is_worth_nothing_without_the_certificate(bench):
    token = bench.tokens.mint()
    answer = await bench.ask("POST", presented=lambda: Presented(token=token))
    assert answer.code == TokenCode.BINDING_MISMATCH


async def test_a_credential_with_two_readings_matters_only_where_one_is_asked_for(bench):
    def two():
        raise TokenError(TokenCode.TOKEN_MALFORMED, "two of them")

    assert (await bench.ask(presented=two)).status == 200
    answer = await bench.ask("POST", presented=two)
    assert (answer.status, answer.code) == (401, TokenCode.TOKEN_MALFORMED)


async def test_a_required_user_is_required(bench):
    answer = await bench.ask(path="/mine")
    assert (answer.status, answer.code) == (401, TokenCode.USER_REQUIRED)


async def test_a_query_is_no_part_of_the_record(bench):
    await bench.ask(path="/orders?secret=hunter2")
    assert bench.lines[0].path == "/orders"


async def test_a_long_request_makes_a_line_that_can_be_read(bench):
    await bench.ask("\x01" * 60_000, "/orders\x02" * 60_000, principal="\x03" * 60_000)
    (line,) = bench.lines
    record = record_of(msgspec.json.encode(line), instance="authorizer-0", seq=1)
    assert (record.id, record.reason) == (line.id, "ambiguous-path")


@pytest.mark.parametrize(
    ("headers", "is_raw", "lines"),
    [
        (((b"X-A", b"1"), (b"x-a", b"2")), True, (b"1", b"2")),
        (((b"x-a", b"1,2"),), True, (b"1,2",)),
        (((b"x-a", b"1,2"),), False, (b"1", b"2")),
        (((b"x-a", b"!"),), False, (b"", b"")),
        (((b"x-a", b"!"),), True, (b"!",)),
    ],
)
def test_field_lines(headers, is_raw, lines):
    question = Question(
        form=Form.ENVOY, target="orders", method="GET", path="/", headers=headers, is_raw=is_raw
    )
    assert lines_of(question) == {"x-a": lines}


async def test_allowed_with_our_headers_and_without_anybody_elses(bench):
    answer = await bench.ask(headers=((b"X_Everyhop_User", b"root"), (b"x-everyhop-role", b"admin")))
    assert answer.status == 200
    assert answer.headers == {
        "x-everyhop-caller": str(STOREFRONT),
        "x-everyhop-operation": "list",
        "x-everyhop-decision": answer.decision,
    }
    assert {"x_everyhop_user", "x-everyhop-role", USER_HEADER, ROLES_HEADER, TXN_HEADER} <= set(answer.remove)
    assert not set(answer.headers) & set(answer.remove)
    (line,) = bench.lines
    assert (line.allowed, line.reason, line.rule, line.caller) == (
        True,
        "allowed",
        "allow[0]",
        str(STOREFRONT),
    )
    assert line.snapshot == bench.tokens.control.snapshot.hash


async def test_a_token_that_holds(bench, monkeypatch):
    monkeypatch.setattr(bench.callers, "identify", lambda *_: ProxiedCaller(str(STOREFRONT), X5T))
    token = bench.tokens.mint()
    answer = await bench.ask("POST", presented=lambda: Presented(token=token))
    assert (answer.status, answer.headers["x-everyhop-operation"]) == (200, "create")
    assert TXN_HEADER in answer.remove


async def test_another_policy_counts_from_the_next_question_on(bench):
    assert (await bench.ask()).status == 200
    bench.apply(parse_policy({"p": POLICY.replace("[list, create, pay]", "[create, pay]").encode()}))
    assert (await bench.ask()).status == 403


async def test_an_upgrade_of_a_declared_socket(bench):
    bench.apply(parse_policy({"p": SOCKETS.encode()}))
    upgrade = ((b"upgrade", b"websocket"), (b"connection", b"upgrade"))
    assert (await bench.ask(path="/live", headers=upgrade)).status == 200
    assert (await bench.ask(path="/orders", headers=upgrade)).status == 403
