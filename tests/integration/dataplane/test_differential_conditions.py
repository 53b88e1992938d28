# SPDX-License-Identifier: Apache-2.0
"""Conditions: the pure decision, Envoy's matcher and the agent behind it give the same answer for the same reason.

Envoy's clock is the real one, so the engine is asked at the moment that the record of a request names.
"""

import dataclasses
import http.client
import socket
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from tests.conditioned import conditioned_documents, facts
from tests.integration.dataplane.test_differential import START, TARGET, decision_of, on_the_wire
from tests.strategies import requests_for, to_files
from tests.support.deciding_agent import DecidingAgent
from tests.support.envoy_pair import Mesh, wait_for

from everyhop.authz import Engine, service_table
from everyhop.core.decision import Reason
from everyhop.dataplane.placing import PlacedVerdict, Placing
from everyhop.policy import parse_policy
from everyhop.policy.facts import Context

EXAMPLES = 50
REQUESTS = 30

seen = Counter()


@pytest.fixture(scope="module")
def mesh():
    with Mesh(START) as mesh, DecidingAgent(mesh, TARGET) as agent:
        mesh.sidecar(TARGET)
        mesh.contexts = {}
        mesh.agent = agent
        yield mesh


class Callers:
    """One connection per caller and address, opened anew when Envoy has closed it."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.connections = {}

    def _connect(self, caller, source):
        if caller not in self.mesh.contexts:
            self.mesh.contexts[caller] = self.mesh.client(uri=caller)
        ingress = self.mesh.sidecars[TARGET].sidecar.ingress
        raw = socket.create_connection(ingress, timeout=5, source_address=(source, 0))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.mesh.contexts[caller].wrap_socket(raw)

    def ask(self, request, known):
        """Return (status, headers), or None when Envoy refused without an answer."""
        key = request.caller, known.source
        for attempt in range(2):
            fresh = attempt == 1 or key not in self.connections
            if key not in self.connections:
                self.connections[key] = self._connect(*key)
            try:
                return self._send(key, request, known)
            except (OSError, http.client.HTTPException):
                self.connections.pop(key).close()
                if fresh:
                    return None
        raise AssertionError("not reached")

    def _send(self, key, request, known):
        connection = self.connections[key]
        lines = [f"{request.method} {request.path} HTTP/1.1", "Host: alpha", "Content-Length: 0"]
        lines += [f"{name}: {value}" for name, value in known.headers]
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        answer = http.client.HTTPResponse(connection, method=request.method)
        answer.begin()
        answer.read()
        if answer.getheader("connection") == "close":
            self.connections.pop(key).close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}

    def close(self):
        for connection in self.connections.values():
            connection.close()
        self.connections.clear()


@st.composite
def cases(draw):
    document = draw(
        conditioned_documents().filter(
            lambda d: (
                "operations" in d["services"].get(TARGET, {})
                and len(d["services"]) > 1
                and any("when" in rule for rule in (*d.get("deny", ()), *d.get("allow", ())))
            )
        )
    )
    snapshot = parse_policy(to_files(document))
    operations = snapshot.services[TARGET].operations
    requests = []
    for _ in range(REQUESTS):
        request = on_the_wire(draw(requests_for(snapshot)))
        if draw(st.integers(0, 3)):  # straight at a door: that is where conditions are
            route = draw(st.sampled_from(operations)).route
            template = route.template.replace("{rest...}", "a/b")
            path = "/".join("a" if part.startswith("{") else part for part in template.split("/"))
            request = dataclasses.replace(request, method=route.method, path=path)
        requests.append((request, draw(facts())))
    return snapshot, [(r, f) for r, f in requests if not set("\r\n\0 \t") & set(r.path)]


def ask_all(mesh, running, requests):
    """Send every request; return the answers, and the records by id once Envoy has written them all."""
    start = running.log_size()
    callers = Callers(mesh)
    answers = [callers.ask(*request) for request in requests]
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
    mesh.agent.apply(snapshot)
    running.apply(snapshot)
    wait_for(lambda: mesh.secrets.configs.enforced(TARGET) == snapshot.hash, what=running.output())
    engine = Engine(snapshot)
    table = Placing(snapshot).table(service_table(snapshot, TARGET))
    answers, records = ask_all(mesh, running, requests)
    if any(record.snapshot != snapshot.hash for record in records.values()):
        # Envoy's worker takes a policy over a moment after its main thread has confirmed it.
        answers, records = ask_all(mesh, running, requests)
    for (request, known), given_answer in zip(requests, answers, strict=True):
        seen["requests"] += 1
        identifier = decision_of(given_answer)
        if identifier is None:
            assert given_answer is None or 400 <= given_answer[0] < 500, (request, given_answer)
            seen["no valid HTTP"] += 1
            continue
        record = records[identifier]
        decision = engine.decide(
            caller=request.caller,
            target=TARGET,
            method=request.method,
            path=request.path,
            context=Context(now=record.time, headers=known.lines(), source_ip=known.source),
        )
        shown = (record.decision, record.reason, record.operation, record.rule, record.status)
        expected = (
            decision.effect,
            decision.reason,
            decision.operation,
            decision.rule,
            decision.status,
        )
        assert shown == tuple(str(x) if isinstance(x, str) else x for x in expected), (request, known)
        assert record.snapshot == snapshot.hash
        assert given_answer[0] == decision.status, request
        seen[str(decision.reason)] += 1
        if decision.operation is not None and decision.reason is not Reason.UNKNOWN_CALLER:
            verdict = table.verdicts(decision.operation)[request.caller]
            where = (
                "in Envoy" if isinstance(verdict, PlacedVerdict) else "at the agent" if verdict.asks else ""
            )
            seen[where, str(decision.reason)] += 1
            seen[where] += 1


def test_conditions_mean_the_same_everywhere_and_enough_of_every_kind_was_asked(mesh):
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
    assert seen["requests"] >= 1000
    for reason in ("allowed", "denied-by-rule", "condition-false", "condition-error"):
        assert seen["in Envoy", reason] >= 5, seen
        assert seen["at the agent", reason] >= 5, seen
    for reason in ("probe", "no-rule", "unknown-operation", "ambiguous-path", "unknown-caller"):
        assert seen[reason] >= 5, seen
    assert mesh.agent.asked >= seen["at the agent"] > 50, seen
