# SPDX-License-Identifier: Apache-2.0
"""A control plane in this process, on a real database, with a clock that the test moves."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from everyhop.anomaly.model import Subject
from everyhop.apikeys import ApiKeys
from everyhop.authority import Authority
from everyhop.control.canaries import CanaryControl, open_marker
from everyhop.control.feed import Feed
from everyhop.control.messages import RecordBatch
from everyhop.control.policy_holder import PolicyHolder
from everyhop.control.proposals import Actor, ChangeRules, Origin
from everyhop.control.pseudonymity import Pseudonymity
from everyhop.control.service import ControlPlane, ControlPorts
from everyhop.control.token_control import TokenWorks
from everyhop.issuing import IssuingSettings, SigningKeys, TokenPorts, TokenService
from everyhop.policy import parse_policy
from everyhop.providers.keystores import MemoryKeyStore
from everyhop.runtime.policy_files import PureRules
from everyhop.storage import Storage, open_storage

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  orders: {workload: [{run: true}], operations: {list: GET /orders}}
allow:
  - {from: storefront, to: orders, operations: [list]}
tests:
  - {from: storefront, call: GET /orders, to: orders, expect: allow}
"""


class MovableClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2026, 6, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        """Return the time it was moved to."""
        return self.time

    def move(self, **by: float) -> None:
        """Let time pass."""
        self.time += timedelta(**by)


class RealEntropy:
    """The kernel's randomness."""

    def token_bytes(self, count: int) -> bytes:
        """Return random bytes."""
        return secrets.token_bytes(count)

    def fraction(self) -> float:
        """Return the middle, so that jitter is nil."""
        return 0.5


class TextSource:
    """A policy source that is a text in memory."""

    name = "shop.yaml"

    def __init__(self, text: str = POLICY) -> None:
        self.text = text

    def fingerprint(self) -> object:
        """Return the text itself."""
        return self.text

    def actor(self) -> Actor:
        """Return somebody."""
        return Actor(origin=Origin.FILE, uid=1000)

    def read(self) -> Mapping[str, bytes]:
        """Return it as one file."""
        return {self.name: self.text.encode()}


class ControlUnderTest:
    """A control plane with the parts that a test looks at."""

    def __init__(
        self,
        directory: Path,
        changes: ChangeRules | None = None,
        exempt: Callable[[], frozenset[Subject]] = frozenset,
    ) -> None:
        self.clock = MovableClock()
        self.storage: Storage = open_storage(
            directory / "everyhop.db", entropy=RealEntropy(), keys=MemoryKeyStore(), clock=self.clock
        )
        self.pool = ThreadPoolExecutor(2)
        self.authority = Authority(
            trust_domain=parse_policy({"p": POLICY.encode()}).trust_domain,
            store=self.storage.authorities,
            keystore=MemoryKeyStore(),
            clock=self.clock,
            entropy=RealEntropy(),
        )
        self.authority.start()
        self.feed = Feed(self.clock)
        self.policy = PolicyHolder()
        self.works = self._token_works()
        self.control = ControlPlane(
            ControlPorts(
                authority=self.authority,
                snapshots=self.storage.snapshots,
                records=self.storage.records,
                rules=PureRules(),
                feed=self.feed,
                clock=self.clock,
                pool=self.pool,
                exchange_pool=self.pool,
                effects=self.pool,
                records_keep=timedelta(days=30),
                tokens=self.works,
                policy=self.policy,
                proposals=self.storage.proposals,
                seals=self.storage.log_seals,
                blocks=self.storage.blocks,
                exempt=exempt,
                changes=changes or ChangeRules(),
                pseudonymity=Pseudonymity(self.storage.pseudonyms),
            )
        )

    def _token_works(self) -> TokenWorks:
        keystore, entropy = MemoryKeyStore(), RealEntropy()
        settings = IssuingSettings(issuer="https://127.0.0.1:8443", trust_domain="shop.example")
        keys = SigningKeys(store=self.storage.issuing, keystore=keystore, clock=self.clock, settings=settings)
        keys.start()
        canaries = CanaryControl(
            store=self.storage.canaries,
            marker=open_marker(self.storage.meta, keystore, entropy),
            clock=self.clock,
            entropy=entropy,
            snapshot=lambda: self.policy().snapshot,
            edge_scopes=self.policy.edge_scopes,
        )
        api_keys = ApiKeys(
            store=self.storage.api_keys,
            keystore=keystore,
            edge_scopes=self.policy.edge_scopes,
            clock=self.clock,
            entropy=entropy,
            canaries=canaries,
        )
        ports = TokenPorts(
            keys=keys,
            store=self.storage.issuing,
            policy=self.policy,
            journal=self.storage.token_journal,
            clock=self.clock,
            entropy=entropy,
            api_keys=api_keys,
        )
        return TokenWorks(
            service=TokenService(ports, settings),
            api_keys=api_keys,
            journal=self.storage.token_journal,
            canaries=canaries,
        )

    def close(self) -> None:
        """Give everything back."""
        self.pool.shutdown()
        self.storage.close()


async def hand_over(control, records):
    """Give records to the server as an agent does that seals none."""
    await control.log.take(RecordBatch(agent="agent", records=list(records)))
