# SPDX-License-Identifier: Apache-2.0
"""Envoy and the pure decision give the same verdict, reason, operation and rule on generated requests."""

import dataclasses
import http.client
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from tests.strategies import policy_documents, requests_for, to_files
from tests.support.envoy_pair import Mesh, wait_for
from tests.support.http2_client import Http2Client, StreamReset

from everyhop.authz import Engine
from everyhop.core.errors import EveryhopError
from everyhop.policy import parse_policy
from everyhop.spiffe.ids import SpiffeId

TARGET = "alpha"
START = "{version: 1, trust_domain: shop.example, services: {alpha: {operations: {list: GET /}}}}"
EXAMPLES = 55
REQUESTS = 40
STRANGER = "spiffe://shop.example/service/nobody"
# What HTTP/1.1 cannot carry in a request line without becoming another request.
UNSPEAKABLE = set("\r\n\0 \t")

seen = Counter()


@pytest.fixture(scope="module")
def mesh():
    with Mesh(START) as mesh:
        mesh.sidecar(TARGET)
        mesh.contexts = {}
        yield mesh


class Callers:
    """One connection per caller and protocol, opened anew when Envoy has closed it."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.contexts = mesh.contexts
        self.connections = {}

    def context(self, caller, alpn):
        if (caller, alpn) not in self.contexts:
            self.contexts[caller, alpn] = self.mesh.client(uri=caller, alpn=(alpn,))
        return self.contexts[caller, alpn]

    def ask(self, request, *, http2):
        """Return (status, headers), or None when Envoy refused without an answer."""
        alpn = "h2" if http2 else "http/1.1"
        key = (request.caller, alpn)
        for attempt in range(2):
            fresh = attempt == 1 or key not in self.connections
            if key not in self.connections:
                raw = self.mesh.connect(TARGET, self.context(request.caller, alpn))
                self.connections[key] = Http2Client(raw) if http2 else raw
            try:
                return self._send(self.connections[key], request, http2=http2)
            except (StreamReset, OSError, http.client.HTTPException) as error:
                self.connections.pop(key).close()
                # A connection that was closed before our request (idle, drained, or after a bad one) says nothing.
                if fresh or (isinstance(error, StreamReset) and "RST" in str(error)):
                    return None
        raise AssertionError("not reached")

    def _send(self, connection, request, *, http2):
        if http2:
            status, headers, _, _ = connection.request(request.method, request.path, authority=TARGET)
            return status, headers
        raw = f"{request.method} {request.path} HTTP/1.1\r\nHost: alpha\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(raw.encode("latin-1"))
        answer = http.client.HTTPResponse(connection, method=request.method)
        answer.begin()
        answer.read()
        if answer.getheader("connection") == "close":
            self.connections.pop((request.caller, "http/1.1")).close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}

    def close(self):
        for connection in self.connections.values():
            connection.close()
        self.connections.clear()


def on_the_wire(request):
    """The request as Envoy gets it: one character a byte, a caller that can have a certificate."""
    caller = request.caller
    try:
        if SpiffeId.parse(caller).trust_domain.name != "shop.example" or not SpiffeId.parse(caller).path:
            caller = STRANGER
    except EveryhopError:
        caller = STRANGER
    caller = str(SpiffeId.parse(caller))
    path = request.path.encode("utf-8").decode("latin-1")
    return dataclasses.replace(
        request, caller=caller, target=TARGET, path=path, method=request.method or "GET"
    )


@st.composite
def cases(draw):
    document = draw(
        policy_documents().filter(
            lambda d: "operations" in d["services"].get(TARGET, {}) and len(d["services"]) > 1
        )
    )
    snapshot = parse_policy(to_files(document))
    requests = draw(st.lists(requests_for(snapshot), min_size=REQUESTS, max_size=REQUESTS))
    return snapshot, [on_the_wire(r) for r in requests]


def decision_of(answer):
    """The id of the decision that an answer speaks of, or None where the policy was not asked."""
    if answer is None:
        return None
    return answer[1].get("x-everyhop-decision") or answer[1].get("x-seen-decision")


def ask_all(mesh, running, requests):
    """Send every request; return the answers, and the records by id once Envoy has written them all."""
    start = running.log_size()
    callers = Callers(mesh)
    answers = []
    for number, request in enumerate(requests):
        http2 = number % 2 == 0 or bool(UNSPEAKABLE & set(request.path))
        answers.append(callers.ask(request, http2=http2))
    callers.close()
    awaited = {decision_of(answer) for answer in answers} - {None}

    def written():
        records = {record.id: record for record in running.lines(since=start)}
        return (records,) if awaited <= records.keys() else None

    (records,) = wait_for(written, what="a record of every decision")
    return answers, records


def compare(mesh, case):
    snapshot, requests = case
    running = mesh.sidecars[TARGET]
    running.apply(snapshot)
    wait_for(lambda: mesh.secrets.configs.enforced(TARGET) == snapshot.hash, what="the snapshot in Envoy")
    engine = Engine(snapshot)
    answers, records = ask_all(mesh, running, requests)
    if any(record.snapshot != snapshot.hash for record in records.values()):
        # Envoy's worker takes a policy over a moment after its main thread has confirmed it.
        answers, records = ask_all(mesh, running, requests)
    for request, answer in zip(requests, answers, strict=True):
        decision = engine.decide(
            caller=request.caller, target=TARGET, method=request.method, path=request.path
        )
        seen["requests"] += 1
        identifier = decision_of(answer)
        if identifier is None:
            # Refused before the policy was asked: the bytes are no valid HTTP to begin with.
            assert not decision.is_allowed, (request, answer)
            assert answer is None or 400 <= answer[0] < 500, (request, answer)
            seen["no valid HTTP"] += 1
            continue
        record = records[identifier]
        shown = (
            record.decision,
            record.reason,
            record.operation,
            record.rule,
            record.snapshot,
            record.status,
        )
        expected = (
            decision.effect,
            decision.reason,
            decision.operation,
            decision.rule,
            snapshot.hash,
            decision.status,
        )
        assert shown == tuple(str(x) if isinstance(x, str) else x for x in expected), (request, answer)
        assert answer[0] == decision.status, request
        seen[str(decision.reason)] += 1


def test_envoy_decides_like_the_engine_and_enough_of_every_kind_was_asked(mesh):
    seen.clear()

    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.generate],
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def each(case):
        compare(mesh, case)

    each()
    print(dict(seen))
    assert seen["requests"] >= 2000
    for reason in (
        "allowed",
        "probe",
        "denied-by-rule",
        "no-rule",
        "unknown-operation",
        "ambiguous-path",
        "unknown-caller",
    ):
        assert seen[reason] >= 5, seen
    assert seen["no valid HTTP"] < seen["requests"] / 5, seen
