# SPDX-License-Identifier: Apache-2.0
"""``everyhop server``: the control plane's process, composed and run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from everyhop.api.admission_app import AdmissionDoor
from everyhop.api.http import http_server, serve_until_stopped
from everyhop.api.log_app import LogDoor
from everyhop.api.server_app import AdminDoor, AgentDoor
from everyhop.auditlog import Event, Kind
from everyhop.authority import Authority, AuthoritySettings
from everyhop.control.feed import Feed
from everyhop.control.log_keys import LogKeys
from everyhop.control.policy_holder import PolicyHolder
from everyhop.control.proposals import ChangeRules
from everyhop.control.pseudonymity import Pseudonymity
from everyhop.control.responding import BlocksInForce
from everyhop.control.sealed_records import OWN_PRODUCERS
from everyhop.control.service import ControlPlane, ControlPorts
from everyhop.core.errors import Conflict, InputError, PolicyError, Unavailable
from everyhop.policy import decode_snapshot, parse_policy
from everyhop.providers.keystores import FileKeyStore
from everyhop.runtime.approvals import Door, admit_anybody, approval_door
from everyhop.runtime.detection import detection_of
from everyhop.runtime.exports import exports_of
from everyhop.runtime.face import describe
from everyhop.runtime.face_door import oauth_door
from everyhop.runtime.face_server import face_service
from everyhop.runtime.known_authorities import KnownAuthorities
from everyhop.runtime.log_works import log_sealing, open_log
from everyhop.runtime.policy_files import PolicyFiles, PureRules
from everyhop.runtime.single_use import replay_guard
from everyhop.runtime.system import SystemClock, SystemEntropy
from everyhop.runtime.token_works import token_works
from everyhop.storage import open_storage
from everyhop.storage.own_seals import OwnSeals
from everyhop.wire.sockets import UnixListener

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from starlette.applications import Starlette
    from starlette.routing import Route

    from everyhop.auditlog.sealing import SealKey
    from everyhop.control.checkpointer import LogSealing
    from everyhop.control.detection import Detection
    from everyhop.control.exporting import Exports
    from everyhop.providers.log_keys import FileLogSigner
    from everyhop.runtime.layout import StateLayout
    from everyhop.runtime.settings import Settings
    from everyhop.spiffe import TrustDomain
    from everyhop.storage import Storage

_log = logging.getLogger(__name__)
WATCH_SECONDS: Final = 0.07
WORKERS: Final = 4
_PRODUCER_BYTES: Final = 6


async def watch_policy(control: ControlPlane, source: PolicyFiles, applied: object) -> None:
    """Put each change of the files in force as soon as they have been still for one interval.

    Reading begins when two looks agree, so an editor that writes in two steps is not caught in between; a
    half-written text that parses by chance is replaced by the whole one at the next look.
    """
    last = applied
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        seen = source.fingerprint()
        if seen == applied:
            last = seen
            continue
        if seen != last:
            last = seen
            continue
        applied = seen
        try:
            await control.apply_policy(source.read(), source=source.name, actor=source.actor())
        except InputError as error:
            await control.refuse_policy(error, source=source.name)
        except (PolicyError, Conflict):
            continue  # apply_policy has logged and kept the refusal
        except Unavailable as error:
            _log.warning(
                "the policy cannot be recorded yet; it is tried again", extra={"reason": error.message}
            )
            applied = None
        except Exception:  # noqa: BLE001  # the watch must go on, whatever one text met
            _log.exception("the policy could not be applied; it is tried again at its next change")


def own_producer() -> str:
    """Return the name under which this process records: one of its own, so that its numbers are its own."""
    return f"server-{SystemEntropy().token_bytes(_PRODUCER_BYTES).hex()}"


def _sealing(storage: Storage, seals: OwnSeals) -> Callable[[SealKey], None]:
    """Return what takes each new key; the first one is noted, and that record takes along all that waited."""
    has_begun = False

    def use(key: SealKey) -> None:
        nonlocal has_begun
        seals.use(key)
        if not has_begun:
            storage.records.note(
                Event(
                    kind=Kind.LOG,
                    action="seal",
                    time=SystemClock().now(),
                    detail={"certificate": key.thumbprint},
                )
            )
            has_begun = True

    return use


def _trust_domain(storage: Storage, source: PolicyFiles) -> TrustDomain:
    """Return the trust domain of this state directory: of its last snapshot, else of the policy given."""
    stored = storage.snapshots.latest()
    snapshot = parse_policy(source.read()) if stored is None else decode_snapshot(stored)
    return snapshot.trust_domain


def _authority(storage: Storage, layout: StateLayout, settings: Settings, domain: TrustDomain) -> Authority:
    authority = Authority(
        trust_domain=domain,
        store=storage.authorities,
        keystore=FileKeyStore(layout.keys / "kek"),
        clock=SystemClock(),
        entropy=SystemEntropy(),
        settings=AuthoritySettings(
            ca_ttl=settings.authority_ttl,
            jwt_key_ttl=settings.authority_ttl,
            x509_ttl=settings.svid_ttl,
            jwt_ttl=settings.jwt_svid_ttl,
            refresh_hint=settings.refresh_hint,
        ),
    )
    authority.start()
    return authority


def _control_plane(
    storage: Storage,
    layout: StateLayout,
    settings: Settings,
    authority: Authority,
    *,
    pool: Executor,
    exchange_pool: Executor,
    effects: Executor,
) -> ControlPlane:
    clock, policy, blocks = SystemClock(), PolicyHolder(), BlocksInForce()
    return ControlPlane(
        ControlPorts(
            authority=authority,
            snapshots=storage.snapshots,
            records=storage.records,
            rules=PureRules(),
            feed=Feed(clock),
            clock=clock,
            pool=pool,
            exchange_pool=exchange_pool,
            effects=effects,
            records_keep=settings.records_keep,
            tokens=token_works(storage, layout, settings, authority=authority, policy=policy, blocks=blocks),
            policy=policy,
            proposals=storage.proposals,
            seals=storage.log_seals,
            pseudonymity=Pseudonymity(storage.pseudonyms, is_on=settings.pseudonyms),
            blocks=storage.blocks,
            blocks_in_force=blocks,
            changes=ChangeRules(confirm_wider=settings.confirm_wider, two_person=settings.two_person),
            urls=describe(layout, settings),
            remember=KnownAuthorities(layout.known_authorities).add,
        )
    )


def _oauth_door(
    control: ControlPlane,
    storage: Storage,
    layout: StateLayout,
    settings: Settings,
    *,
    pool: Executor,
    exchange_pool: Executor,
    authzen_pool: Executor,
    further: Sequence[Route],
) -> Starlette:
    return oauth_door(
        layout,
        settings,
        trust_domain=control.snapshot.trust_domain,
        tokens=control.tokens.works.service,
        journal=storage.token_journal,
        replay=replay_guard(settings, SystemClock()),
        snapshot=lambda: control.snapshot,
        feed=control.feed,
        records=storage.records,
        api_keys=control.tokens.works.api_keys,
        blocks=control.blocks_in_force,
        pool=pool,
        exchange_pool=exchange_pool,
        authzen_pool=authzen_pool,
        watch=control.tokens.works.canaries,
        further=further,
    )


def _exports(
    storage: Storage, settings: Settings, stack: contextlib.AsyncExitStack, *, origin: str
) -> Exports:
    # A thread of their own: a receiver's pace is nobody else's, and what it asks of the database is short.
    pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="exports"))
    return exports_of(
        storage, settings, origin=origin, clock=SystemClock(), entropy=SystemEntropy(), pool=pool
    )


def _log_door(
    control: ControlPlane, storage: Storage, signer: FileLogSigner, stack: contextlib.AsyncExitStack
) -> LogDoor:
    # Of its own: however much somebody reads of the log, it keeps nobody else waiting.
    pool = stack.enter_context(ThreadPoolExecutor(2, thread_name_prefix="log"))
    return LogDoor(
        storage.log_tree,
        signer,
        records=storage.records,
        snapshot=lambda: control.snapshot,
        clock=SystemClock(),
        pool=pool,
    )


def _admission_routes(
    storage: Storage, settings: Settings, stack: contextlib.AsyncExitStack
) -> Sequence[Route]:
    if not settings.admission:
        return ()
    # One thread: a cluster's objects are judged in milliseconds, and a flood of them costs no token.
    pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="admission"))
    return AdmissionDoor(records=storage.records, clock=SystemClock(), pool=pool).routes()


def _detection(
    control: ControlPlane, storage: Storage, settings: Settings, stack: contextlib.AsyncExitStack
) -> Detection:
    # A thread of its own: counters have one owner, and a flood of records delays no command.
    pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="detection"))
    canaries = control.tokens.works.canaries
    return detection_of(
        storage,
        settings,
        snapshot=lambda: control.snapshot,
        clock=SystemClock(),
        pool=pool,
        responder=control.responder,
        services=canaries,
        state_key=None if canaries is None else canaries.state_key(),
        reveal=Pseudonymity(storage.pseudonyms, is_on=settings.pseudonyms).reveal,
    )


async def run_server(layout: StateLayout, settings: Settings, policy: Path) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises PolicyError, Conflict or InputError when there is neither an acceptable policy nor an older
    snapshot, and TrustError when the keys of the state directory cannot be opened.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    source = PolicyFiles(policy)
    fingerprint = source.fingerprint()
    async with contextlib.AsyncExitStack() as stack:
        storage = stack.enter_context(
            contextlib.closing(
                open_storage(
                    settings.database or layout.database,
                    entropy=SystemEntropy(),
                    producer=own_producer(),
                    keys=FileKeyStore(layout.keys / "kek"),
                    clock=SystemClock(),
                    disguise=settings.pseudonyms,
                )
            )
        )
        own_seals = OwnSeals(OWN_PRODUCERS, SystemClock().now)
        storage.database.own_seals = own_seals
        pool = stack.enter_context(ThreadPoolExecutor(WORKERS, thread_name_prefix="control"))
        # Of its own, because an exchange may wait for the keys of somebody else's OIDC issuer.
        exchange_pool = stack.enter_context(ThreadPoolExecutor(WORKERS, thread_name_prefix="exchange"))
        domain = _trust_domain(storage, source)
        # Before anything is appended: nothing is signed over a log that is not what it was.
        signer = open_log(storage, layout, domain.name)
        authority = _authority(storage, layout, settings, domain)
        effects = stack.enter_context(ThreadPoolExecutor(WORKERS, thread_name_prefix="effects"))
        control = _control_plane(
            storage,
            layout,
            settings,
            authority,
            pool=pool,
            exchange_pool=exchange_pool,
            effects=effects,
        )
        await control.start(source)
        exports = _exports(storage, settings, stack, origin=signer.origin)
        control.exports = exports
        control.detection = _detection(control, storage, settings, stack)
        control.log.followers.append(control.detection.wake)
        strangers = stack.enter_context(ThreadPoolExecutor(WORKERS, thread_name_prefix="oauth"))
        # Of its own too, so that a long search keeps nobody from his token.
        peps = stack.enter_context(ThreadPoolExecutor(WORKERS, thread_name_prefix="authzen"))
        door = _oauth_door(
            control,
            storage,
            layout,
            settings,
            pool=strangers,
            exchange_pool=exchange_pool,
            authzen_pool=peps,
            further=[
                *_log_door(control, storage, signer, stack).routes(),
                *_admission_routes(storage, settings, stack),
            ],
        )
        await stack.enter_async_context(
            face_service(
                door,
                authority=authority,
                feed=control.feed,
                layout=layout,
                settings=settings,
                pool=pool,
                seal_with=_sealing(storage, own_seals),
            )
        )
        approvals = approval_door(control, settings)
        control.log_keys = LogKeys(signer, storage.records, SystemClock(), pool)
        sealing = log_sealing(storage, settings, signer, pool=pool)
        control.describe("log", sealing.status)
        await _serve(
            control, layout, source, fingerprint, stop, approvals=approvals, sealing=sealing, exports=exports
        )


async def _serve(
    control: ControlPlane,
    layout: StateLayout,
    source: PolicyFiles,
    applied: object,
    stop: asyncio.Event,
    *,
    approvals: Door | None,
    sealing: LogSealing,
    exports: Exports,
) -> None:
    with contextlib.ExitStack() as stack:
        doors = []
        for door in (
            Door(http_server(AgentDoor(control).app()), layout.server_socket),
            Door(http_server(AdminDoor(control).app(), admit_uid=admit_anybody), layout.admin_socket),
            *(() if approvals is None else (approvals,)),
        ):
            bound = UnixListener.bind(door.path, mode=door.mode)
            doors.append((door.server, stack.enter_context(contextlib.closing(bound))))
        _log.info("serving", extra={"snapshot": control.snapshot.hash})
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(control.run_schedule()),
                group.create_task(control.tokens.run_schedule()),
                group.create_task(sealing.run()),
                group.create_task(control.responder.run()),
                group.create_task(watch_policy(control, source, applied)),
                group.create_task(exports.run()),
                *(() if control.detection is None else (group.create_task(control.detection.run()),)),
            ]
            for server, listener in doors:
                group.create_task(serve_until_stopped(server, listener.sock))
            await stop.wait()
            for server, _ in doors:
                server.stop()
            for task in background:
                task.cancel()
