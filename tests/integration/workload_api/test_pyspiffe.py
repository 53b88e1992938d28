# SPDX-License-Identifier: Apache-2.0
"""Another project's client against our server, on a real socket."""

import os
import queue
import threading

import pytest
from spiffe import JwtSource, SpiffeId, TrustDomain, WorkloadApiClient, X509Source
from spiffe.errors import PySpiffeError

DOMAIN = TrustDomain("shop.example")
ORDERS = "spiffe://shop.example/service/orders"
MINE = f"[{{unix: {{uid: {os.getuid()}}}}}]"


@pytest.fixture
def client(agent):
    with WorkloadApiClient(agent.endpoint) as opened:
        yield opened


def test_a_process_without_an_entry_is_refused(agent, client):
    agent.apply({"orders": "[{unix: {uid: 4242}}]"})
    for ask in (
        client.fetch_x509_svid,
        client.fetch_x509_bundles,
        client.fetch_jwt_bundles,
        lambda: client.fetch_jwt_svid(audience={"payments"}),
    ):
        with pytest.raises(PySpiffeError, match="no identity issued"):
            ask()


def test_a_jwt_for_an_identity_of_somebody_else_is_refused(agent, client):
    with pytest.raises(PySpiffeError, match="not entitled"):
        client.fetch_jwt_svid(audience={"x"}, subject=SpiffeId("spiffe://shop.example/service/payments"))


def test_a_token_for_another_audience_or_changed_is_not_validated(client):
    svid = client.fetch_jwt_svid(audience={"payments"})
    with pytest.raises(PySpiffeError, match="another audience"):
        client.validate_jwt_svid(svid.token, "ledger")
    head, _, signature = svid.token.rpartition(".")
    with pytest.raises(PySpiffeError):
        client.validate_jwt_svid(f"{head}.{signature[:-6]}AAAAAA", "payments")


def test_fetch_x509_svid_and_bundle(agent, client):
    svid = client.fetch_x509_svid()
    assert str(svid.spiffe_id) == ORDERS
    context = client.fetch_x509_context()
    bundle = context.x509_bundle_set.get_bundle_for_trust_domain(DOMAIN)
    assert len(bundle.x509_authorities) == 1
    assert svid.leaf.verify_directly_issued_by(next(iter(bundle.x509_authorities))) is None
    assert svid.private_key.public_key() == svid.leaf.public_key()
    assert client.fetch_x509_bundles().get_bundle_for_trust_domain(DOMAIN) == bundle


def test_all_identities_most_specific_first(agent, client):
    agent.apply(
        {
            "alpha": MINE,
            "zulu": f"[{{unix: {{uid: {os.getuid()}, gid: {os.getgid()}}}}}]",
            "other": "[{unix: {uid: 4242}}]",
        }
    )
    names = [str(svid.spiffe_id).rpartition("/")[2] for svid in client.fetch_x509_svids()]
    assert names == ["zulu", "alpha"]
    tokens = client.fetch_jwt_svids(audience={"payments"})
    assert [str(token.spiffe_id).rpartition("/")[2] for token in tokens] == ["zulu", "alpha"]


def test_jwt_fetch_and_validate(client):
    svid = client.fetch_jwt_svid(audience={"payments", "ledger"})
    assert str(svid.spiffe_id) == ORDERS
    assert set(svid.audience) == {"payments", "ledger"}
    assert str(client.validate_jwt_svid(svid.token, "payments").spiffe_id) == ORDERS
    bundles = client.fetch_jwt_bundles()
    assert bundles.get_bundle_for_trust_domain(DOMAIN).get_jwt_authority("jwt-1") is not None


def test_watch_through_two_rotations(agent, client):
    seen = queue.Queue()
    cancel = client.stream_x509_contexts(seen.put, seen.put)
    try:
        first = seen.get(timeout=10)
        serials = {first.default_svid.leaf.serial_number}
        for rotation in (2, 3):
            agent.rotate()
            while True:  # the new bundle may come a moment before the new SVID
                context = seen.get(timeout=10)
                bundle = context.x509_bundle_set.get_bundle_for_trust_domain(DOMAIN)
                assert len(bundle.x509_authorities) == rotation
                if context.default_svid.leaf.serial_number not in serials:
                    break
            serials.add(context.default_svid.leaf.serial_number)
        assert len(serials) == 3
    finally:
        cancel.cancel()


def test_sources_follow_a_rotation(agent):
    with X509Source(socket_path=agent.endpoint) as source, JwtSource(socket_path=agent.endpoint) as jwt:

        def serial():
            return source.get_x509_context().default_svid.leaf.serial_number

        before = serial()
        changed = threading.Event()
        source.subscribe_for_updates(changed.set)
        agent.rotate()
        while serial() == before:
            assert changed.wait(10)
            changed.clear()
        assert jwt.fetch_svid(audience={"payments"}).spiffe_id == SpiffeId(ORDERS)
