# SPDX-License-Identifier: Apache-2.0
"""Error codes of the endpoint, message by message (SPIFFE_Workload_Endpoint.md sections 3 and 6)."""

import os

import pytest
from tests.support.agent_under_test import AgentUnderTest
from tests.support.raw_grpc import RawGrpc

from everyhop.wire.workload_pb2 import (
    JWTBundlesResponse,
    JWTSVIDRequest,
    JWTSVIDResponse,
    ValidateJWTSVIDRequest,
    ValidateJWTSVIDResponse,
    X509BundlesResponse,
    X509SVIDResponse,
)
from everyhop.x509.certificates import split_certificates

INVALID_ARGUMENT, RESOURCE_EXHAUSTED, PERMISSION_DENIED, UNIMPLEMENTED, UNAVAILABLE = 3, 8, 7, 12, 14
API = "/SpiffeWorkloadAPI/"
METHODS = [
    "FetchX509SVID",
    "FetchX509Bundles",
    "FetchJWTSVID",
    "FetchJWTBundles",
    "ValidateJWTSVID",
    "FetchWITSVID",
    "FetchWITBundles",
]
JWT = JWTSVIDRequest(audience=["payments"]).SerializeToString()
REQUESTS = {
    "FetchJWTSVID": JWT,
    "ValidateJWTSVID": ValidateJWTSVIDRequest(audience="a", svid="a.b.c").SerializeToString(),
}
MINE = f"[{{unix: {{uid: {os.getuid()}}}}}]"


@pytest.fixture
def client(agent):
    with RawGrpc(agent.socket) as opened:
        yield opened


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("workload.spiffe.io", "false"),),
        (("workload.spiffe.io", "True"),),
        (("workload.spiffe.io", ""),),
        (("workload.spiffe.io", "true"), ("workload.spiffe.io", "true")),
        (("x-workload.spiffe.io", "true"),),
    ],
)
def test_the_header_is_required_exactly(client, method, metadata):
    outcome = client.ask(API + method, REQUESTS.get(method, b""), metadata=metadata)
    assert outcome[-1][:2] == ("status", INVALID_ARGUMENT)
    assert len(outcome) == 1


@pytest.mark.parametrize(
    "method", ["/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/"]
)
def test_reflection_wants_the_header_too_and_lists_the_api(client, method):
    list_services = b"\x3a\x00"
    path = method + "ServerReflectionInfo"
    assert client.ask(path, list_services, metadata=())[-1][:2] == ("status", INVALID_ARGUMENT)
    outcome = client.ask(path, list_services)
    assert b"SpiffeWorkloadAPI" in outcome[0][1]
    symbol = b"\x22\x11SpiffeWorkloadAPI"
    assert b"FetchX509SVID" in client.ask(path, symbol)[0][1]


@pytest.mark.parametrize("method", METHODS[:5])
def test_no_identity(agent, client, method):
    agent.apply({"orders": "[{unix: {uid: 4242}}]"})
    outcome = client.ask(API + method, REQUESTS.get(method, b""))
    assert [event[:2] for event in outcome] == [("status", PERMISSION_DENIED)]


@pytest.mark.parametrize("method", ["FetchWITSVID", "FetchWITBundles", "FetchNothing"])
def test_unimplemented(client, method):
    assert client.ask(API + method)[-1][:2] == ("status", UNIMPLEMENTED)


@pytest.mark.parametrize("method", METHODS[:5])
@pytest.mark.parametrize("has_policy", [False, True])
def test_unavailable_while_starting(directory, method, has_policy):
    with AgentUnderTest(directory, started=False) as agent, RawGrpc(agent.socket) as client:
        if has_policy:
            agent.apply({"orders": MINE})
        outcome = client.ask(API + method, REQUESTS.get(method, b""))
        assert [event[:2] for event in outcome] == [("status", UNAVAILABLE)]


@pytest.mark.parametrize(
    "request_",
    [
        JWTSVIDRequest(),
        JWTSVIDRequest(audience=[""]),
        JWTSVIDRequest(audience=["a", ""]),
        JWTSVIDRequest(audience=["a", "a"]),
        JWTSVIDRequest(audience=["a" * 5000]),
        JWTSVIDRequest(audience=[f"a{n}" for n in range(100)]),
        JWTSVIDRequest(audience=["a"], spiffe_id="https://shop.example/x"),
        JWTSVIDRequest(audience=["a"], spiffe_id="spiffe://shop.example/a//b"),
    ],
)
def test_bad_jwt_requests(agent, client, request_):
    outcome = client.ask(API + "FetchJWTSVID", request_.SerializeToString())
    assert [event[:2] for event in outcome] == [("status", INVALID_ARGUMENT)]
    assert agent.control.jwt_calls == []


def test_jwt_of_an_identity_not_granted(agent, client):
    for other in ("spiffe://shop.example/service/payments", "spiffe://other.example/service/orders"):
        request = JWTSVIDRequest(audience=["a"], spiffe_id=other)
        outcome = client.ask(API + "FetchJWTSVID", request.SerializeToString())
        assert [event[:2] for event in outcome] == [("status", PERMISSION_DENIED)]
    assert agent.control.jwt_calls == []


def test_bad_validations(client):
    token = JWTSVIDResponse.FromString(client.ask(API + "FetchJWTSVID", JWT)[0][1]).svids[0].svid
    for audience, svid in (
        ("", token),
        ("payments", ""),
        ("other", token),
        ("payments", token[:-8]),
        ("payments", "x"),
    ):
        request = ValidateJWTSVIDRequest(audience=audience, svid=svid)
        outcome = client.ask(API + "ValidateJWTSVID", request.SerializeToString())
        assert [event[:2] for event in outcome] == [("status", INVALID_ARGUMENT)]


def test_validation_gives_the_claims(client):
    token = JWTSVIDResponse.FromString(client.ask(API + "FetchJWTSVID", JWT)[0][1]).svids[0].svid
    request = ValidateJWTSVIDRequest(audience="payments", svid=token)
    outcome = client.ask(API + "ValidateJWTSVID", request.SerializeToString())
    answer = ValidateJWTSVIDResponse.FromString(outcome[0][1])
    assert answer.spiffe_id == "spiffe://shop.example/service/orders"
    assert answer.claims["sub"] == answer.spiffe_id
    assert list(answer.claims["aud"]) == ["payments"]


def test_messages_that_are_none(client):
    assert client.ask(API + "FetchJWTSVID", b"\xff\xff\xff")[-1][:2] == ("status", INVALID_ARGUMENT)
    assert client.ask(API + "FetchJWTSVID", None)[-1][:2] == ("status", INVALID_ARGUMENT)
    assert client.ask(API + "FetchJWTSVID", JWT, compressed=True)[-1][:2] == ("status", INVALID_ARGUMENT)


def test_a_message_beyond_the_limit_is_not_read(agent, client):
    stream = client.open(API + "FetchJWTSVID", None, end=False)
    client.h2.send_data(stream, b"\x00\x7f\xff\xff\xff")
    client.flush()
    assert client.next()[:2] == ("status", RESOURCE_EXHAUSTED)
    with RawGrpc(agent.socket) as other:
        assert other.ask(API + "FetchJWTSVID", JWT)[-1][:2] == ("status", 0)


def test_x509_svid_message(agent, client):
    client.open(API + "FetchX509SVID")
    answer = X509SVIDResponse.FromString(client.next()[1])
    (svid,) = answer.svids
    assert (svid.spiffe_id, svid.hint) == ("spiffe://shop.example/service/orders", "orders")
    assert len(split_certificates(svid.x509_svid)) == 1
    assert split_certificates(svid.bundle) == tuple(agent.authority.certificates)
    assert svid.x509_svid_key
    assert not answer.federated_bundles
    assert not answer.crl


def test_bundles_are_keyed_by_the_id_of_the_trust_domain(agent, client):
    client.open(API + "FetchX509Bundles")
    answer = X509BundlesResponse.FromString(client.next()[1])
    assert dict(answer.bundles) == {"spiffe://shop.example": agent.authority.certificates[0]}
    with RawGrpc(agent.socket) as other:
        other.open(API + "FetchJWTBundles")
        jwks = JWTBundlesResponse.FromString(other.next()[1]).bundles["spiffe://shop.example"]
        assert b'"jwt-svid"' in jwks
        assert b"x509" not in jwks
        agent.rotate()
        assert b'"jwt-2"' in JWTBundlesResponse.FromString(other.next()[1]).bundles["spiffe://shop.example"]
    assert (
        len(
            split_certificates(
                X509BundlesResponse.FromString(client.next()[1]).bundles["spiffe://shop.example"]
            )
        )
        == 2
    )


@pytest.mark.parametrize("method", ["FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles"])
def test_withdrawal_ends_the_stream_with_permission_denied(agent, client, method):
    client.open(API + method)
    assert client.next()[0] == "message"
    agent.apply({"orders": "[{unix: {uid: 4242}}]"})
    assert client.next()[:2] == ("status", PERMISSION_DENIED)


def test_a_withdrawn_identity_is_redacted_while_another_stays(agent, client):
    agent.apply({"orders": MINE, "payments": MINE})
    client.open(API + "FetchX509SVID")
    assert [svid.hint for svid in X509SVIDResponse.FromString(client.next()[1]).svids] == [
        "orders",
        "payments",
    ]
    agent.apply({"orders": "[{unix: {uid: 4242}}]", "payments": MINE})
    assert [svid.hint for svid in X509SVIDResponse.FromString(client.next()[1]).svids] == ["payments"]


def test_a_policy_change_that_means_nothing_to_a_workload_sends_nothing(agent, client):
    client.open(API + "FetchX509SVID")
    assert client.next()[0] == "message"
    agent.apply({"orders": MINE, "payments": "[{unix: {uid: 4242}}]"})
    agent.rotate()
    answer = X509SVIDResponse.FromString(client.next()[1])
    assert len(split_certificates(answer.svids[0].bundle)) == 2  # the rotation, not the policy


def test_the_server_down_is_not_noticed_by_who_has_an_identity(agent, client):
    client.open(API + "FetchX509SVID")
    first = client.next()[1]
    agent.control.down = True
    with RawGrpc(agent.socket) as other:
        other.open(API + "FetchX509SVID")
        assert other.next()[1] == first
