# SPDX-License-Identifier: Apache-2.0
"""``everyhop agent``: the node's process, composed and run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING

from everyhop.agent import IdentityCache, LaunchRegistry, ServiceTokens, TokenCache, WorkloadService
from everyhop.agent.changes import Changes
from everyhop.api.agent_app import OwnerDoor
from everyhop.api.ext_authz import ExternalAuthorization, authorization_server
from everyhop.api.http import http_server, serve_until_stopped
from everyhop.api.workload_api import workload_server
from everyhop.control.app_decisions import ApplicationDecisions
from everyhop.control.blocks_held import HeldBlocks
from everyhop.control.client import ControlClient
from everyhop.control.credentials import Credentials
from everyhop.control.launching import Places, load_key
from everyhop.control.node import Node, NodePorts
from everyhop.control.refused_credentials import RefusedCredentials
from everyhop.control.sealer import AgentSealer
from everyhop.control.sidecars import Sidecars
from everyhop.control.token_truth import TokenTruth
from everyhop.control.workload_tokens import WorkloadTokens
from everyhop.dataplane.envoy import locate_envoy
from everyhop.dataplane.sds import SecretDiscovery, secrets_server
from everyhop.providers.attestors import ProcInspector
from everyhop.runtime.authorizer_pool import AuthorizerPool
from everyhop.runtime.single_use import single_use
from everyhop.runtime.system import SystemClock, SystemEntropy
from everyhop.wire.sockets import UnixListener

if TYPE_CHECKING:
    from everyhop.runtime.layout import StateLayout
    from everyhop.runtime.settings import Settings

_log = logging.getLogger(__name__)


def _places(layout: StateLayout) -> Places:
    return Places(
        workload_socket=layout.workload_socket,
        sds_socket=layout.sds_socket,
        instances=layout.instances,
        envoy=layout.envoy,
        spool=layout.spool,
        logs=layout.logs,
    )


async def run_agent(layout: StateLayout, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; raises SettingsError when there is no Envoy."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    clock, entropy, changes = SystemClock(), SystemEntropy(), Changes()
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            ControlClient(layout.server_socket, f"{socket.gethostname()}-agent")
        )
        registry = stack.enter_context(
            contextlib.closing(LaunchRegistry(layout.agent_state / "launches.json", changes=changes))
        )
        identities = IdentityCache(control=client, clock=clock, entropy=entropy, changes=changes)
        tokens = TokenCache(control=client, clock=clock)
        service_tokens = ServiceTokens(
            control=client, identities=identities, clock=clock, entropy=entropy, changes=changes
        )
        truth = TokenTruth(clock)
        blocks = HeldBlocks(layout.agent_state / "blocks.json", clock)
        credentials = Credentials(
            tokens=service_tokens,
            exchanger=client,
            spend=single_use(settings, clock),
            clock=clock,
            blocks=blocks,
        )
        refused = RefusedCredentials(client, clock)
        inspector = stack.enter_context(contextlib.closing(ProcInspector()))
        workloads = WorkloadService(
            inspector=inspector,
            launches=registry,
            identities=identities,
            tokens=tokens,
            clock=clock,
            changes=changes,
        )
        workload_tokens = WorkloadTokens(
            workloads=workloads,
            identities=identities,
            launches=registry,
            tokens=service_tokens,
            exchanger=client,
            truth=truth,
            blocks=blocks,
        )
        secrets = SecretDiscovery(
            identities=identities,
            launches=registry,
            workloads=workloads,
            changes=changes,
            tokens=service_tokens,
            is_withheld=blocks.is_quarantined,
        )
        decisions = ApplicationDecisions(
            workloads,
            layout.agent_state / "decisions",
            clock=clock,
            entropy=entropy,
            limit=settings.spool_limit,
        )
        places, key = _places(layout), load_key(layout.agent_state / "key", entropy)
        sidecars = Sidecars(
            configs=secrets.configs,
            tokens=service_tokens,
            key=key,
            node=client.agent,
            sds_socket=layout.sds_socket,
            max_connections=settings.max_connections,
            clock=clock,
        )
        authorizers = None
        if settings.authorizers:
            authorizers = stack.enter_context(contextlib.closing(AuthorizerPool(layout, settings, entropy)))
        node = Node(
            NodePorts(
                client=client,
                registry=registry,
                identities=identities,
                workloads=workloads,
                secrets=secrets,
                sidecars=sidecars,
                tokens=service_tokens,
                truth=truth,
                credentials=credentials,
                changes=changes,
                places=places,
                key=key,
                envoy=locate_envoy(settings.envoy),
                envoy_concurrency=settings.envoy_concurrency,
                record_flush_ms=int(settings.record_flush.total_seconds() * 1000),
                entropy=entropy,
                clock=clock,
                decisions=decisions,
                sealer=AgentSealer(identities, client.agent, clock=clock),
                spool_limit=settings.spool_limit,
                blocks=blocks,
                authorizers=authorizers,
            )
        )
        for server, path, mode in (
            (
                workload_server(workloads, tokens=workload_tokens, decisions=decisions),
                layout.workload_socket,
                0o777,
            ),
            (secrets_server(secrets), layout.sds_socket, 0o600),
            (
                authorization_server(ExternalAuthorization(credentials, registry, refused)),
                layout.authz_socket,
                0o600,
            ),
        ):
            listener = stack.enter_context(contextlib.closing(UnixListener.bind(path, mode=mode)))
            await server.start(listener)
            stack.push_async_callback(server.close)
        door = http_server(OwnerDoor(node, workloads, identities, tokens, service_tokens).app())
        owner = stack.enter_context(contextlib.closing(UnixListener.bind(layout.agent_socket, mode=0o600)))
        _log.info("serving", extra={"agent": client.agent, "pid": os.getpid()})
        async with asyncio.TaskGroup() as group:
            work = [group.create_task(node.run()), group.create_task(refused.run())]
            if authorizers is not None:
                work.append(group.create_task(authorizers.run()))
            serving = group.create_task(serve_until_stopped(door, owner.sock))
            await stop.wait()
            door.stop()
            for task in work:
                task.cancel()
            await asyncio.wait([serving])
