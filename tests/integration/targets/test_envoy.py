# SPDX-License-Identifier: Apache-2.0
"""The standalone Envoy for real: each decision is the engine's, and what it does not decide it asks or refuses."""

import asyncio
import json
import ssl
from functools import partial

import pytest
from tests.integration.targets.conftest import compiled, identity, request_of, until
from tests.support.envoy_pair import free_port
from tests.support.foreign_proxies import Process

from everyhop.core.decision import Effect
from everyhop.core.errors import Unavailable
from everyhop.dataplane.envoy import locate_envoy, validate_configuration
from everyhop.evaluators.model import Wire
from everyhop.runtime.mtls import client_context
from everyhop.runtime.target_caller import TargetCaller
from everyhop.runtime.target_envoy import TargetEnvoy, answers_of_envoy
from everyhop.runtime.target_envoys import EnvoyEvaluator
from everyhop.runtime.target_places import Places, moved, secret_files
from everyhop.testing.authority import Authority
from everyhop.x509.certificates import certificates_to_pem

ASKING = "envoy: {authorizer: 'unix:/run/everyhop/authorizer.sock'}"
ALONE = "envoy: {}"
PATHS = (
    "/orders",
    "/orders/",
    "/orders?x=1",
    "/orders?x=/../y",
    "/Orders",
    "/orders/7",
    "/orders/7/",
    "/orders/7/8",
    "/orders/",
    "/orders/mine",
    "/orders/a%20b",
    "/orders/a%2fb",
    "/orders/a%2Fb",
    "/orders/a%5cb",
    "/orders/a;b",
    "/orders/%2e%2e",
    "/orders/..",
    "/orders/%6dine",
    "/orders/%25",
    "/orders/%00",
    "/orders/a%zz",
    "/orders//7",
    "//orders",
    "/./orders",
    "/public/../orders",
    "/public/a/../../orders",
    "/public",
    "/public/",
    "/public/a/b",
    "/public/a//b",
    "/public/a\\b",
    "/healthz",
    "/healthz/",
    "/hear",
    "/x",
    "/",
    "orders",
    "*",
    "http://orders/orders",
    "/orders#x",
    "/orders\xff",
)
METHODS = ("GET", "POST", "HEAD", "DELETE", "OPTIONS", "get", "GETX")
CALLERS = ("web", "job", "orders", "rpc", "nobody")


@pytest.fixture(scope="module")
def alone():
    return compiled("envoy", ALONE)


@pytest.fixture(scope="module")
def asking():
    return compiled("envoy", ASKING)


def bootstrap(found, service="orders"):
    return found.files[f"envoy/{service}/bootstrap.json"]


def decided(found, request):
    if request.wire is Wire.TCP:
        decision = found.engine.decide_tcp(caller=request.peer, target=request.target.name)
    else:
        decision = found.engine.decide(
            caller=request.peer, target=request.target.name, method=request.method, path=request.path
        )
    return decision.effect is Effect.ALLOW


def ask(found, requests, authority, service="orders"):
    return asyncio.run(answers_of_envoy(bootstrap(found, service), requests, authority=authority))


def allowed_by(bootstrap, requests, authority):
    return [one.allowed for one in asyncio.run(answers_of_envoy(bootstrap, requests, authority=authority))]


def test_every_door_is_the_engine_s_for_every_caller_method_and_path(asking, authority):
    requests = [
        request_of(caller, method, path)
        for caller in CALLERS
        for path in PATHS
        for method in (METHODS if path in {"/orders", "/orders/7", "/public/a/b"} else ("GET", "POST"))
    ]
    answers = ask(asking, requests, authority)
    wrong = [
        (request.peer, request.method, request.path, answer)
        for request, answer in zip(requests, answers, strict=True)
        if answer.asks is None and answer.allowed != decided(asking, request)
    ]
    assert not wrong
    let_through = {(r.peer, r.method, r.path) for r, a in zip(requests, answers, strict=True) if a.allowed}
    assert (identity("web"), "GET", "/orders/7") in let_through
    assert len(let_through) >= 20


def test_who_is_not_of_the_trust_domain_gets_nowhere(asking, authority):
    answers = ask(
        asking,
        [
            request_of(None, "GET", "/orders"),
            request_of(identity("web", "evil.example"), "GET", "/orders"),
            request_of(identity("web", "shop.example.evil.example"), "GET", "/orders"),
            request_of("spiffe://shop.example/service/web/x", "GET", "/orders"),
            request_of("web", "GET", "/orders"),
        ],
        authority,
    )
    assert [answer.allowed for answer in answers] == [False, False, False, False, True]
    assert [answer.why[:3] for answer in answers[3:]] == ["403", "200"]
    assert all("ended" in answer.why for answer in answers[:3])


def test_the_authorizer_is_asked_exactly_where_facts_decide(asking, authority):
    requests = {
        "token": request_of("web", "POST", "/pay"),
        "condition": request_of("web", "GET", "/region"),
        "user": request_of("web", "POST", "/say"),
        "plain": request_of("web", "GET", "/orders"),
        "probe": request_of("job", "GET", "/healthz"),
        "no-rule": request_of("job", "POST", "/pay"),
        "denied": request_of("job", "POST", "/orders"),
    }
    answers = dict(zip(requests, ask(asking, list(requests.values()), authority), strict=True))
    assert {name for name, answer in answers.items() if answer.asks} == {"token", "condition", "user"}
    assert {name for name, answer in answers.items() if answer.allowed} == {
        "token",
        "condition",
        "user",
        "plain",
        "probe",
    }


def test_without_an_authorizer_the_doors_that_facts_decide_stay_shut(alone, authority):
    requests = [request_of("web", "POST", "/pay"), request_of("web", "GET", "/region")]
    assert allowed_by(bootstrap(alone), requests, authority) == [False, False]
    assert {"envoy.token", "envoy.token-binding", "envoy.condition"} <= set(alone.codes)
    assert "ext_authz" not in bootstrap(alone).decode().replace("ext_authz_", "").replace("ext_authz:", "")


def test_an_authorizer_that_is_away_closes_its_doors_only(asking, authority):
    async def run():
        async with TargetEnvoy(bootstrap(asking), authority=authority) as envoy:
            await envoy.stop_agreeing()
            return [
                await envoy.ask(request_of("web", "POST", "/pay")),
                await envoy.ask(request_of("web", "GET", "/orders")),
            ]

    pay, plain = asyncio.run(run())
    assert (pay.allowed, pay.why) == (False, "503")
    assert plain.allowed


def test_websockets_only_where_they_are_declared(asking, authority):
    answers = ask(
        asking,
        [
            request_of("web", "GET", "/live/1", wire=Wire.WEBSOCKET),
            request_of("web", "GET", "/orders", wire=Wire.WEBSOCKET),
            request_of("job", "GET", "/live/1", wire=Wire.WEBSOCKET),
        ],
        authority,
    )
    assert [answer.allowed for answer in answers] == [True, False, False]


def test_grpc_by_its_path(asking, authority):
    answers = ask(
        asking,
        [
            request_of("web", "POST", "/shop.v1.Rpc/Get", target="rpc", wire=Wire.GRPC),
            request_of("job", "POST", "/shop.v1.Rpc/Get", target="rpc", wire=Wire.GRPC),
            request_of("web", "POST", "/shop.v1.Rpc/Put", target="rpc", wire=Wire.GRPC),
        ],
        authority,
        "rpc",
    )
    assert [answer.allowed for answer in answers] == [True, False, False]


def test_a_service_without_callers_opens_to_nobody(asking, authority):
    requests = [request_of(caller, "GET", "/x", target="closed") for caller in CALLERS]
    assert not any(answer.allowed for answer in ask(asking, requests, authority, "closed"))


@pytest.mark.parametrize(("service", "open_to"), [("db", ["web"]), ("shut", [])])
def test_bytes_reach_a_tcp_service_from_its_callers_only(asking, authority, service, open_to):
    requests = [request_of(caller, target=service, wire=Wire.TCP) for caller in CALLERS]
    requests += [
        request_of(None, target=service, wire=Wire.TCP),
        request_of(identity("web", "evil.example"), target=service, wire=Wire.TCP),
    ]
    answers = ask(asking, requests, authority, service)
    assert [r.source.name for r, a in zip(requests, answers, strict=True) if a.allowed] == open_to
    for request, answer in zip(requests[: len(CALLERS)], answers, strict=False):
        assert answer.allowed == decided(asking, request)


async def first_bytes(authority, port, caller, patience=30.0):
    """What a caller that stays silent reads of a tcp service."""
    svid = authority.issue(identity(caller))
    context = client_context(svid.chain, svid.key.reveal(), authority.bundle.x509_authorities)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="db")
    except (ssl.SSLError, ConnectionError):
        return b""
    try:
        return await asyncio.wait_for(reader.read(1), patience)
    except (ssl.SSLError, ConnectionError):
        return b""
    finally:
        writer.transport.abort()


def silent(content, authority):
    async def run():
        async with TargetEnvoy(content, authority=authority) as envoy:
            return [await first_bytes(authority, envoy.port, caller) for caller in ("web", "job")]

    return asyncio.run(run())


def test_who_may_not_connect_reads_nothing_even_when_silent(asking, authority):
    allowed, refused = silent(bootstrap(asking, "db"), authority)
    assert len(allowed) == 1
    assert refused == b""


def test_trap_a_network_filter_alone_lets_the_application_speak_to_strangers(asking, authority):
    """Why the names of the callers stand in the handshake, too: the same bootstrap without them."""
    document = json.loads(bootstrap(asking, "db"))
    (chain,) = document["static_resources"]["listeners"][0]["filter_chains"]
    context = chain["transport_socket"]["typed_config"]["common_tls_context"]
    names = context["combined_validation_context"]["default_validation_context"]
    assert [one["matcher"] for one in names["match_typed_subject_alt_names"]] == [{"exact": identity("web")}]
    names["match_typed_subject_alt_names"] = [
        {"san_type": "URI", "matcher": {"prefix": "spiffe://shop.example/"}}
    ]
    _, refused = silent(json.dumps(document).encode(), authority)
    assert len(refused) == 1


def test_certificates_rotate_without_a_restart(asking, authority):
    """The authority is rotated too: who shows a certificate of the forgotten one is refused from then on."""
    own = Authority("shop.example")

    async def served(port, other_than=None):
        svid = own.issue(identity("web"))
        context = client_context(svid.chain, svid.key.reveal(), own.bundle.x509_authorities)
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname="orders"
            )
        except (ssl.SSLError, ConnectionError):
            return None
        del reader
        try:
            serial = writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
            return None if serial == other_than else serial
        finally:
            writer.transport.abort()

    async def run():
        async with TargetEnvoy(bootstrap(asking), authority=own) as envoy:
            before, pid = await served(envoy.port), envoy.pid
            stale = own.issue(identity("web"))
            own.rotate(forget=True)
            envoy.rotate()
            after = await until(partial(served, envoy.port, other_than=before))
            old = client_context(stale.chain, stale.key.reveal(), own.bundle.x509_authorities)
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", envoy.port, ssl=old, server_hostname="orders"
                )
                writer.write(b"GET /orders HTTP/1.1\r\nhost: orders\r\n\r\n")
                await reader.readexactly(1)
            fresh = await envoy.ask(request_of("job", "GET", "/orders"))
            return before, after, pid == envoy.pid, fresh.allowed

    before, after, is_same_process, fresh = asyncio.run(run())
    assert before is not None
    assert after not in {before, None}
    assert is_same_process
    assert fresh


def test_each_bootstrap_is_valid_to_envoy_itself(alone, asking, tmp_path, authority):
    places = Places(tmp_path)
    for directory in (places.certificates, places.secrets):
        directory.mkdir()
    svid = authority.issue(identity("orders"))
    (places.certificates / "svid.pem").write_bytes(svid.chain_pem)
    (places.certificates / "key.pem").write_bytes(svid.key_pem.reveal())
    (places.certificates / "bundle.pem").write_bytes(svid.chain_pem)
    for name, content in secret_files(places).items():
        (places.secrets / name).write_bytes(content)
    for found in (alone, asking):
        for path, content in found.files.items():
            if path.endswith("bootstrap.json"):
                places.bootstrap.write_bytes(moved(content, places, "0" * 32))
                validate_configuration(locate_envoy(), places.bootstrap)


def test_an_envoy_that_refuses_its_configuration_is_no_answer(asking, authority, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    document = json.loads(bootstrap(asking))
    (chain,) = document["static_resources"]["listeners"][0]["filter_chains"]
    chain["filters"][0]["typed_config"]["no_such_field"] = 1
    broken = json.dumps(document).encode()
    with pytest.raises(Unavailable, match="no_such_field"):
        allowed_by(broken, [request_of("web", "GET", "/orders")], authority)
    assert not list(tmp_path.iterdir())


def test_as_an_evaluator_it_starts_each_envoy_once_and_a_few_at_a_time(asking, monkeypatch):
    monkeypatch.setattr("everyhop.runtime.target_envoys.AT_A_TIME", 2)
    with EnvoyEvaluator(asking.files, trust_domain="shop.example") as envoys:
        requests = [
            request_of("web", "GET", "/orders"),
            request_of("job", "POST", "/orders"),
            request_of("web", target="db", wire=Wire.TCP),
            request_of("job", target="db", wire=Wire.TCP),
            request_of("web", "POST", "/shop.v1.Rpc/Get", target="rpc", wire=Wire.GRPC),
            request_of("web", "GET", "/orders/1"),
            request_of("web", "GET", "/x", target="unheard"),
        ]
        found = [envoys.evaluate(request).allowed for request in requests]
        assert len(envoys._living) == 2
    assert found == [True, False, True, False, True, True, False]


def test_a_path_with_two_readings_is_a_bad_request_and_not_a_refusal(asking, authority):
    """Filters run before routes: a route that answers 400 would never be reached by what the filter refuses."""
    paths = ("/public/../orders", "/orders/a%2fb", "/orders//7", "/orders/%6dine", "/orders/a;b")
    answers = ask(asking, [request_of("nobody", "GET", path) for path in paths], authority)
    assert [(answer.allowed, answer.why) for answer in answers] == [(False, "400")] * len(paths)


def test_trap_normalised_paths_would_be_wider(asking, authority):
    """Why ``normalize_path`` is off: the same bootstrap with it lets a call pass that the policy refuses."""
    document = json.loads(bootstrap(asking))
    (chain,) = document["static_resources"]["listeners"][0]["filter_chains"]
    chain["filters"][0]["typed_config"] |= {"normalize_path": True, "merge_slashes": True}
    requests = [request_of("job", "GET", path) for path in ("/public/../orders", "//orders")]
    assert not any(decided(asking, request) for request in requests)
    normalising = json.dumps(document).encode()
    assert allowed_by(normalising, requests, authority) == [True, True]
    assert not any(answer.allowed for answer in ask(asking, requests, authority))


def test_the_output_runs_as_it_is(authority, tmp_path):
    """Nothing is moved here: the files where the options say, Envoy with the command line of the documentation."""
    port = free_port()
    settings = f"envoy: {{certificates: {tmp_path}/svid, directory: {tmp_path}/envoy, listen: 127.0.0.1, listen_port: {port}}}"
    found = compiled("envoy", settings)
    for path, content in found.files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    svid = authority.issue(identity("orders"))
    (tmp_path / "svid").mkdir()
    for name, content in {
        "svid.pem": svid.chain_pem,
        "key.pem": svid.key_pem.reveal(),
        "bundle.pem": certificates_to_pem(svid.bundle.x509_authorities),
    }.items():
        (tmp_path / "svid" / name).write_bytes(content)
    argv = [str(locate_envoy()), "--config-path", str(tmp_path / "envoy/orders/bootstrap.json")]
    argv += ["--use-dynamic-base-id", "--reject-unknown-dynamic-fields", "--concurrency", "1"]

    async def statuses():
        caller = TargetCaller(port, authority, "", is_tcp=False)
        requests = [request_of("web", "GET", "/orders"), request_of("nobody", "GET", "/orders")]
        try:
            return [(await caller.ask(request)).why for request in requests]
        finally:
            await caller.close()

    with Process(None, argv, port, tmp_path / "log"):
        assert asyncio.run(statuses()) == ["503", "403"]  # there is no application


def test_the_access_log_names_the_rule_that_decided(asking, authority):
    async def run():
        async with TargetEnvoy(bootstrap(asking), authority=authority) as envoy:
            await envoy.ask(request_of("web", "GET", "/orders/7"))
            await envoy.ask(request_of("job", "POST", "/orders"))

            async def both():
                lines = [line for line in envoy.log.splitlines() if line.startswith("{")]
                return lines if len(lines) > 1 else None

            return [json.loads(line) for line in await until(both)]

    read, create = asyncio.run(run())
    rule = asking.engine.decide(caller=identity("web"), target="orders", method="GET", path="/orders/7").rule
    assert read["verdict"] == f"{asking.snapshot.hash[:16]}|allowed|{rule}"
    assert read["operation"] == "read"
    assert create["status"] == 403
