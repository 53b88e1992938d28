# SPDX-License-Identifier: Apache-2.0
"""Objects read over TLS from a small API server: pages, versions, refusals; nothing but GET is sent."""

import json

import pytest
from tests.support.api_server import ApiServer
from tests.support.receiver import make_pki

from everyhop.core.errors import AccessDenied, InputError, TrustError, Unavailable
from everyhop.core.secret import Secret
from everyhop.manifests import read_manifests
from everyhop.providers.kubeconfig import ClusterAccess
from everyhop.providers.kubernetes_objects import ClusterReader

SECURITY = "security.istio.io"


def policy(name, version="v1"):
    return {
        "apiVersion": f"{SECURITY}/{version}", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "shop", "managedFields": [{"manager": "x"}], "uid": "1"}, "spec": {},
    }  # fmt: skip


SPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
FIVE = [policy(f"p{number}") for number in range(5)]
KINDS = [
    (SECURITY, "AuthorizationPolicy"),
    ("", "Namespace"),
    ("cilium.io", "CiliumNetworkPolicy"),
    (SECURITY, "None"),
]


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return make_pki(tmp_path_factory.mktemp("pki"), "127.0.0.1", "kubernetes.default", label="api")


@pytest.fixture
def serve(pki):
    servers = []

    def run(objects, **further):
        server = ApiServer(objects, pki.certificate, pki.key, **further)
        servers.append(server)
        return server

    yield run
    for server in servers:
        server.close()


def access(server, pki, **further):
    known = {
        "authorities": pki.ca.read_bytes(),
        "server_name": None,
        "certificate": None,
        "key": None,
        "token": None,
    }
    return ClusterAccess(server=server.url, **(known | further))


def read(server, pki, kinds=KINDS, **further):
    with ClusterReader(access(server, pki, **further)) as reader:
        return reader.read(kinds)


def test_lists_are_read_in_pages_and_are_manifests(serve, pki):
    server = serve([*FIVE, SPACE])
    files = read(server, pki)
    found = read_manifests(files)
    assert [one.name for one in found.of("AuthorizationPolicy")] == [f"p{number}" for number in range(5)]
    assert [one.name for one in found.of("Namespace")] == ["shop"]
    assert b"managedFields" not in b"".join(files.values())
    assert {method for method, _ in server.asked} == {"GET"}
    pages = [path for _, path in server.asked if "authorizationpolicies" in path]
    assert pages == [
        f"/apis/{SECURITY}/v1/authorizationpolicies?limit=500{token}"
        for token in ("", "&continue=2", "&continue=4")
    ]


def test_the_version_is_the_servers_own(serve, pki):
    (content,) = read(serve([policy("old", "v1beta1")]), pki, KINDS[:1]).values()
    assert json.loads(content)["items"][0]["apiVersion"] == f"{SECURITY}/v1beta1"


def test_a_list_that_grew_old_is_read_anew_once(serve, pki):
    found = read_manifests(read(serve(FIVE, expires=1), pki))
    assert len(found) == 5
    with pytest.raises(Unavailable, match="grows old faster"):
        read(serve(FIVE, expires=2), pki)


def test_who_asks_is_told_by_a_token_or_a_certificate(serve, pki):
    server = serve(FIVE, token="right")
    assert len(read_manifests(read(server, pki, token=Secret(b"right")))) == 5
    with pytest.raises(TrustError, match="does not know who asks"):
        read(server, pki, token=Secret(b"wrong"))
    mutual = serve(FIVE, authority=pki.ca)
    key = Secret(pki.key.read_bytes())
    assert len(read_manifests(read(mutual, pki, certificate=pki.certificate.read_bytes(), key=key))) == 5
    with pytest.raises(Unavailable):
        read(mutual, pki)
    with pytest.raises(InputError, match="cannot be used"):
        read(mutual, pki, certificate=b"none", key=key)


def test_a_kind_that_may_not_be_read_is_an_error_and_not_an_empty_list(serve, pki):
    with pytest.raises(AccessDenied, match="authorizationpolicies"):
        read(serve(FIVE, forbidden=frozenset({"authorizationpolicies"})), pki)


def test_a_server_that_is_not_the_named_one_gets_nothing(serve, pki, tmp_path):
    server = serve(FIVE)
    other = make_pki(tmp_path, "127.0.0.1", label="other")
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        read(server, pki, authorities=other.ca.read_bytes(), token=Secret(b"t"))
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        read(server, pki, server_name="elsewhere", token=Secret(b"t"))
    assert len(read_manifests(read(server, pki, server_name="kubernetes.default"))) == 5
    with pytest.raises(InputError, match="cannot be used"):
        read(server, pki, authorities=b"\xff")
    assert all("authorizationpolicies" in path or "apis" in path or "api" in path for _, path in server.asked)


@pytest.mark.parametrize(
    ("answer", "word"),
    [(b"no json", "is no JSON"), (b'{"items": 1}', "is no list"), (b"[]", "is no list")],
)
def test_answers_that_are_none(serve, pki, answer, word):
    path = f"/apis/{SECURITY}/v1/authorizationpolicies"
    with pytest.raises(Unavailable, match=word):
        read(serve(FIVE, answers={path: answer}), pki)


def test_a_server_that_is_not_there(pki, serve):
    server = serve(FIVE)
    there = access(server, pki)
    server.close()
    with ClusterReader(there) as reader, pytest.raises(Unavailable, match="cannot be read"):
        reader.read(KINDS)
