# SPDX-License-Identifier: Apache-2.0
import asyncio
import logging
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from grpclib.client import Channel, StreamStreamMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.support.workloads import DOMAIN, AuthorityForTests, FakeControlPlane, FixedEntropy, RealClock

from everyhop.agent import Changes, IdentityCache
from everyhop.core.errors import AttestationError, NotFound
from everyhop.dataplane.lanes import label
from everyhop.dataplane.sds import SecretDiscovery, bundle_secret, secrets_server
from everyhop.spiffe.bundle import Bundle
from everyhop.wire.envoy import (
    SECRET_TYPE_URL,
    SPIFFE_VALIDATOR_NAME,
    STREAM_SECRETS,
    DiscoveryRequest,
    DiscoveryResponse,
    Node,
    Secret,
    SPIFFECertValidatorConfig,
    Status as Detail,
)
from everyhop.wire.sockets import UnixListener

SECONDS = 5


class Agent:
    """The server on a socket, with launches and a policy that a test can change."""

    def __init__(self, directory, snapshot):
        self.directory = directory
        self.snapshot = snapshot
        self.changes = Changes()
        self.authority = AuthorityForTests(RealClock())
        self.control = FakeControlPlane(self.authority)
        self.launches = {"i-orders": "orders", "i-web": "storefront"}
        self.asked = []

    async def __aenter__(self):
        self.identities = IdentityCache(
            control=self.control, clock=RealClock(), entropy=FixedEntropy(), changes=self.changes
        )
        self.publish()
        self.shown, self.serial = None, 1
        self.secrets = SecretDiscovery(
            identities=self.identities, launches=self, workloads=self, changes=self.changes, tokens=self
        )
        self.server = secrets_server(self.secrets)
        self.listener = UnixListener.bind(self.directory / "sds.sock", mode=0o600)
        await self.server.start(self.listener)
        self.renewing = asyncio.create_task(self.identities.run())
        self.channel = Channel(path=str(self.directory / "sds.sock"))
        return self

    async def __aexit__(self, *exc_info):
        self.channel.close()
        await self.server.close()
        self.listener.close()
        self.renewing.cancel()
        await asyncio.gather(self.renewing, return_exceptions=True)

    def publish(self):
        self.identities.apply_bundle(self.authority.bundle(), self.authority.name)

    def check_sidecar(self, peer, instance):
        self.asked.append((peer.pid, instance))
        if instance not in self.launches:
            raise AttestationError("no such launch")
        return SimpleNamespace(service=self.launches[instance])

    def generation(self, spiffe_id):
        return self.shown or self.identities.current(spiffe_id)

    def token_for(self, spiffe_id, target, operation, x5t):
        if target == "nowhere":
            return None
        return f"{spiffe_id}|{target}|{operation}|{x5t}|{self.serial}"

    def open(self):
        return StreamStreamMethod(self.channel, STREAM_SECRETS, DiscoveryRequest, DiscoveryResponse).open()


@pytest.fixture
async def agent(tmp_path, snapshot):
    async with Agent(tmp_path, snapshot) as agent:
        yield agent


def first(name, instance="i-orders"):
    return DiscoveryRequest(node=Node(id=instance), resource_names=[name], type_url=SECRET_TYPE_URL)


def answer_to(response, name, *, error=None):
    request = DiscoveryRequest(
        version_info=response.version_info, resource_names=[name], response_nonce=response.nonce
    )
    if error:
        request.error_detail.CopyFrom(Detail(code=13, message=error))
    return request


async def receive(stream):
    async with asyncio.timeout(SECONDS):
        return await stream.recv_message()


def secret_in(response):
    (resource,) = response.resources
    assert resource.type_url == response.type_url == SECRET_TYPE_URL
    return Secret.FromString(resource.value)


async def nothing_comes(stream):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await stream.recv_message()


async def until(condition):
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110  # many conditions, none with an event of its own
            await asyncio.sleep(0.01)


async def refused(agent, request):
    with pytest.raises(GRPCError) as caught:
        async with agent.open() as stream:
            await stream.send_message(request)
            await receive(stream)
            await stream.recv_trailing_metadata()
    return caught.value.status


# --- refusals


async def test_a_peer_that_is_no_sidecar(agent):
    assert await refused(agent, first("svid", instance="i-nobody")) is Status.PERMISSION_DENIED
    assert await refused(agent, first("svid", instance="")) is Status.PERMISSION_DENIED
    assert agent.asked[0][1] == "i-nobody"


@pytest.mark.parametrize(
    "names", [[], ["other"], ["svid", "other"], [""], ["spiffe://shop.example/service/orders"]]
)
async def test_secrets_that_do_not_exist(agent, names):
    request = DiscoveryRequest(node=Node(id="i-orders"), resource_names=names)
    assert await refused(agent, request) is Status.INVALID_ARGUMENT


async def test_a_service_that_the_policy_no_longer_declares(agent):
    agent.launches["i-orders"] = "gone"
    assert await refused(agent, first("svid")) is Status.PERMISSION_DENIED


async def test_before_there_is_a_policy(agent):
    agent.snapshot = None
    assert await refused(agent, first("bundle")) is Status.PERMISSION_DENIED


async def test_the_stream_ends_when_the_launch_does(agent):
    with pytest.raises(GRPCError) as caught:
        async with agent.open() as stream:
            await stream.send_message(first("svid"))
            assert secret_in(await receive(stream)).name == "svid"
            agent.launches.clear()
            agent.changes.bump()
            await receive(stream)
            await stream.recv_trailing_metadata()
    assert caught.value.status is Status.PERMISSION_DENIED


def test_a_bundle_that_trusts_nobody_is_not_sent():
    with pytest.raises(NotFound):
        bundle_secret(Bundle(trust_domain=DOMAIN, x509_authorities=(), jwt_authorities={}))


# --- secrets


async def test_each_sidecar_gets_its_own_svid(agent):
    for instance, service in agent.launches.items():
        async with agent.open() as stream:
            await stream.send_message(first("svid", instance))
            secret = secret_in(await receive(stream))
            certificate = x509.load_pem_x509_certificate(
                secret.tls_certificate.certificate_chain.inline_bytes
            )
            key = load_pem_private_key(secret.tls_certificate.private_key.inline_bytes, None)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
                f"spiffe://shop.example/service/{service}"
            ]
            assert key.public_key() == certificate.public_key()
            await stream.end()


async def test_the_bundle_is_for_the_spiffe_validator(agent):
    async with agent.open() as stream:
        await stream.send_message(first("bundle"))
        secret = secret_in(await receive(stream))
        validator = secret.validation_context.custom_validator_config
        assert validator.name == SPIFFE_VALIDATOR_NAME
        config = SPIFFECertValidatorConfig.FromString(validator.typed_config.value)
        (domain,) = config.trust_domains
        assert domain.name == "shop.example"
        assert domain.trust_bundle.inline_bytes.count(b"BEGIN CERTIFICATE") == 1
        assert not secret.validation_context.HasField("trusted_ca")
        await stream.end()


async def test_while_there_is_no_svid_yet_it_waits(agent):
    agent.control.down = True
    async with agent.open() as stream:
        await stream.send_message(first("svid"))
        await nothing_comes(stream)
        agent.control.down = False
        agent.identities.retry_now()
        assert secret_in(await receive(stream)).name == "svid"
        await stream.end()


async def test_a_rotation_is_pushed_and_nothing_else_is(agent):
    async with agent.open() as stream:
        await stream.send_message(first("svid"))
        before = await receive(stream)
        await stream.send_message(answer_to(before, "svid"))
        agent.changes.bump()
        await nothing_comes(stream)
        agent.authority.rotate()
        agent.publish()
        after = await receive(stream)
        assert after.nonce != before.nonce
        assert after.version_info != before.version_info
        assert secret_in(after).tls_certificate != secret_in(before).tls_certificate
        await stream.end()


async def test_a_sidecar_that_reconnects_is_answered_anew(agent):
    """The first request after a reconnect names a version but no nonce."""
    async with agent.open() as stream:
        await stream.send_message(first("svid"))
        version = (await receive(stream)).version_info
        await stream.end()
    async with agent.open() as stream:
        request = first("svid")
        request.version_info = version
        await stream.send_message(request)
        assert (await receive(stream)).version_info == version
        await stream.end()


# --- acknowledgements


async def test_a_bundle_counts_as_held_once_confirmed(agent):
    assert agent.secrets.acknowledged_bundle("i-orders") == 0
    async with agent.open() as stream:
        await stream.send_message(first("bundle"))
        response = await receive(stream)
        assert agent.secrets.acknowledged_bundle("i-orders") == 0
        await stream.send_message(answer_to(response, "bundle"))
        await until(lambda: agent.secrets.acknowledged_bundle("i-orders") == 1)
        agent.authority.rotate()
        agent.publish()
        response = await receive(stream)
        assert agent.secrets.acknowledged_bundle("i-orders") == 1
        await stream.send_message(answer_to(response, "bundle"))
        await until(lambda: agent.secrets.acknowledged_bundle("i-orders") == 2)
        assert agent.secrets.acknowledged_bundle("i-web") == 0
        await stream.end()
    await until(lambda: agent.secrets.acknowledged_bundle("i-orders") == 0)


async def test_a_rejected_bundle_does_not_count(agent, caplog):
    async with agent.open() as stream:
        await stream.send_message(first("bundle"))
        response = await receive(stream)
        with caplog.at_level(logging.WARNING):
            await stream.send_message(answer_to(response, "bundle", error="cannot load it"))
            await until(lambda: "cannot load it" in caplog.text)
        assert agent.secrets.acknowledged_bundle("i-orders") == 0
        await nothing_comes(stream)  # the same again would be rejected again
        agent.authority.rotate()
        agent.publish()
        response = await receive(stream)
        await stream.send_message(answer_to(response, "bundle"))
        await until(lambda: agent.secrets.acknowledged_bundle("i-orders") == 2)
        await stream.end()


async def test_an_answer_to_an_older_push_does_not_confirm_the_newer(agent):
    async with agent.open() as stream:
        await stream.send_message(first("bundle"))
        old = await receive(stream)
        agent.authority.rotate()
        agent.publish()
        await receive(stream)
        await stream.send_message(answer_to(old, "bundle"))
        await asyncio.sleep(0.1)
        assert agent.secrets.acknowledged_bundle("i-orders") == 0
        await stream.end()


async def test_an_svid_confirms_no_bundle(agent):
    async with agent.open() as stream:
        await stream.send_message(first("svid"))
        await stream.send_message(answer_to(await receive(stream), "svid"))
        await asyncio.sleep(0.1)
        assert agent.secrets.acknowledged_bundle("i-orders") == 0
        await stream.end()


# --- tokens


async def current(agent, service="orders"):
    spiffe_id = agent.snapshot.services[service].spiffe_id
    return await agent.identities.x509(spiffe_id)


async def test_a_generation_has_its_certificate_and_its_tokens(agent):
    identity = await current(agent)
    generation = label(identity.x5t)
    async with agent.open() as stream:
        await stream.send_message(first(f"svid@{generation}"))
        secret = secret_in(await receive(stream))
        assert secret.name == f"svid@{generation}"
        assert secret.tls_certificate.certificate_chain.inline_bytes == identity.chain_pem
        await stream.end()
    for audience, operation in (("ledger", None), ("ledger#write", "write")):
        async with agent.open() as stream:
            name = f"token@{generation}/{audience}"
            await stream.send_message(first(name))
            secret = secret_in(await receive(stream))
            expected = f"Bearer {identity.spiffe_id}|ledger|{operation}|{identity.x5t}|1"
            assert secret.name == name
            assert secret.generic_secret.secret.inline_string == expected
            await stream.end()


async def test_a_renewed_token_is_pushed_and_confirmation_is_known(agent):
    name = f"token@{label((await current(agent)).x5t)}/ledger"
    async with agent.open() as stream:
        await stream.send_message(first(name))
        response = await receive(stream)
        assert not agent.secrets.is_confirmed("i-orders", name)
        await stream.send_message(answer_to(response, name))
        await until(lambda: agent.secrets.is_confirmed("i-orders", name))
        assert not agent.secrets.is_confirmed("i-web", name)
        agent.serial = 2
        agent.changes.bump()
        assert secret_in(await receive(stream)).generic_secret.secret.inline_string.endswith("|2")
        await stream.end()
    await until(lambda: not agent.secrets.is_confirmed("i-orders", name))


async def test_a_rejected_token_is_not_confirmed(agent):
    name = f"token@{label((await current(agent)).x5t)}/ledger"
    async with agent.open() as stream:
        await stream.send_message(first(name))
        await stream.send_message(answer_to(await receive(stream), name, error="no"))
        await nothing_comes(stream)
        assert not agent.secrets.is_confirmed("i-orders", name)
        await stream.end()


async def test_no_confirmation_without_a_response(agent):
    async with agent.open() as stream:
        request = first("svid", instance="i-web")
        request.response_nonce = "0"
        await stream.send_message(request)
        await receive(stream)
        assert not agent.secrets.is_confirmed("i-web", "svid")
        await stream.end()


async def test_another_generation_and_what_is_not_held_wait(agent):
    generation = label((await current(agent)).x5t)
    for name in ("svid@aaaaaaaaaaaa", "token@aaaaaaaaaaaa/ledger", f"token@{generation}/nowhere"):
        async with agent.open() as stream:
            await stream.send_message(first(name))
            await nothing_comes(stream)
            await stream.end()


async def test_a_sidecar_gets_tokens_of_its_own_service_only(agent):
    orders, web = await current(agent), await current(agent, "storefront")
    async with agent.open() as stream:
        await stream.send_message(first(f"token@{label(orders.x5t)}/ledger", instance="i-web"))
        await nothing_comes(stream)
        await stream.end()
    async with agent.open() as stream:
        await stream.send_message(first(f"token@{label(web.x5t)}/ledger", instance="i-web"))
        token = secret_in(await receive(stream)).generic_secret.secret.inline_string
        assert token.startswith(f"Bearer {web.spiffe_id}|")
        await stream.end()


@pytest.mark.parametrize(
    "name", ["svid@x", "token@aaaaaaaaaaaa/", "token", "tokens", "svid@aaaaaaaaaaaa/orders"]
)
async def test_other_names_are_refused(agent, name):
    assert await refused(agent, first(name)) is Status.INVALID_ARGUMENT


async def test_a_quarantined_service_gets_nothing_any_more(agent):
    withheld = set()
    agent.secrets._is_withheld = withheld.__contains__

    async def ask_and_wait():
        async with agent.open() as stream:
            await stream.send_message(first("svid"))
            if not withheld:
                assert await receive(stream)
            withheld.add("spiffe://shop.example/service/orders")
            agent.changes.bump()
            await stream.recv_message()

    for _ in ("an open stream", "a new one"):
        with pytest.raises(GRPCError, match="is quarantined"):
            await asyncio.wait_for(ask_and_wait(), SECONDS)
