# SPDX-License-Identifier: Apache-2.0
"""Credentials that are tried out: many accounts from one address, or a few tries each over very many accounts.

Both look at attempts: requests to exchange or check a credential that name an account (a user, the public part of an API
key) and the address that they came from.  Which account it is was said by whoever tries, so these findings are held
against addresses only.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from everyhop.anomaly.detectors._memory import Memory
from everyhop.anomaly.detectors._telling import block, moment, spoken
from everyhop.anomaly.finding import Finding, Severity, some_of
from everyhop.anomaly.model import Subject, SubjectKind
from everyhop.anomaly.observation import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from everyhop.anomaly.detectors.settings import (
        CredentialStuffing as StuffingSettings,
        PasswordSpray as SpraySettings,
    )
    from everyhop.anomaly.observation import Observation

MAX_ADDRESSES: Final = 2048
MAX_TRIES: Final = 128
MAX_FAILED: Final = 1024
ALL: Final = "all"
_ACCOUNT: Final = 64
_KEY: Final = "apikey:"
_TRIES: Final = frozenset({"exchange", "authenticate", "login"})
_FORGET: Final = 0.9  # what the usual number of failing accounts keeps of its past each window
_FAILED_OF_ONE: Final = 0.9


class Attempt(NamedTuple):
    """One credential that was tried.  ``time`` in seconds since 1970."""

    time: float
    address: str
    account: str
    failed: bool
    record: str


def attempt_of(o: Observation) -> Attempt | None:
    """Return the attempt that an observation is, None for everything else."""
    if o.kind != "token" or o.operation not in _TRIES or o.address is None or o.outcome is Outcome.FAULT:
        return None
    account = o.api_key or o.user or o.detail.get("account") or o.detail.get("subject")
    if not isinstance(account, str):
        return None
    account = account.removeprefix(_KEY)  # the subject of a token that was given for an API key
    failed = o.outcome is Outcome.FAILED
    return Attempt(o.time.timestamp(), o.address, account[:_ACCOUNT], failed, o.record)


class _Try(msgspec.Struct, array_like=True):
    time: float
    account: str
    failed: bool
    record: str


class _Address(msgspec.Struct):
    tries: list[_Try] = []  # msgspec copies an empty default
    told: float = 0.0

    def add(self, a: Attempt, window: float) -> None:
        """Take an attempt and forget what is older than ``window`` seconds."""
        kept = [t for t in self.tries if t.time > a.time - window]
        if not any(t.failed for t in kept):
            self.told = 0.0
        kept.append(_Try(a.time, a.account, a.failed, a.record))
        self.tries = kept[-MAX_TRIES:]


class CredentialStuffing:
    """Finds an address that tries many accounts and mostly fails."""

    name: Final = "credential-stuffing"

    def __init__(self, settings: StuffingSettings) -> None:
        self._settings = settings
        self._addresses = Memory(_Address, limit=MAX_ADDRESSES)

    def observe(self, observation: Observation, now: datetime) -> Sequence[Finding]:
        """Take one observation; at most one finding."""
        del now
        tried = attempt_of(observation)
        if tried is None:
            return ()
        s = self._settings
        address = self._addresses.touch(tried.address)
        address.add(tried, s.window.total_seconds())
        failed = [t for t in address.tries if t.failed]
        accounts = len({t.account for t in failed})
        if (
            address.told
            or len(address.tries) < min(s.attempts, MAX_TRIES)
            or accounts < s.accounts
            or len(failed) < s.failed_share * len(address.tries)
            or len(failed) > s.per_account * accounts
        ):
            return ()
        address.told = tried.time
        subject = Subject(SubjectKind.ADDRESS, tried.address)
        title = (
            f"an address tried {accounts} accounts in {spoken(s.window)}:"
            f" {len(failed)} of {len(address.tries)} attempts failed"
        )
        suggestion = f"{block(subject, self.name)}; revoke what was accepted from there: everyhop log show --kind token"
        return (
            _finding(self.name, subject, title, failed, accounts, s.accounts, None, suggestion, observation),
        )

    def state(self) -> Mapping[str, bytes]:
        """Return the attempts of each address."""
        return self._addresses.state()

    def restore(self, state: Mapping[str, bytes]) -> None:
        """Take them back."""
        self._addresses.restore(state)


class _All(msgspec.Struct):
    tries: list[
        tuple[float, str, str, str]
    ] = []  # time, account, address, record; msgspec copies an empty default
    window: int = 0  # the number of the window that is counted now
    usual: float = 0.0
    told: float = 0.0


class PasswordSpray:
    """Finds accounts that fail a few times each: very many of them from many addresses, or slowly from one."""

    name: Final = "password-spray"

    def __init__(self, settings: SpraySettings) -> None:
        self._settings = settings
        self._addresses = Memory(_Address, limit=MAX_ADDRESSES)
        self._all = Memory(_All, limit=1)

    def observe(self, observation: Observation, now: datetime) -> Sequence[Finding]:
        """Take one observation; at most one finding for its address and one for all."""
        del now
        tried = attempt_of(observation)
        if tried is None:
            return ()
        found = [*self._of_one(tried, observation)]
        if tried.failed:
            found += self._of_all(tried, observation)
        return found

    def _of_one(self, tried: Attempt, o: Observation) -> Sequence[Finding]:
        s = self._settings
        address = self._addresses.touch(tried.address)
        address.add(tried, s.window_of_one.total_seconds())
        failed = [t for t in address.tries if t.failed]
        by_account = Counter(t.account for t in failed)
        if (
            address.told
            or len(by_account) < s.accounts_of_one
            or max(by_account.values()) > s.per_account
            or len(failed) < _FAILED_OF_ONE * len(address.tries)
        ):
            return ()
        address.told = tried.time
        subject = Subject(SubjectKind.ADDRESS, tried.address)
        title = (
            f"an address tried {len(by_account)} accounts in {spoken(s.window_of_one)},"
            f" none more than {s.per_account} times"
        )
        suggestion = block(subject, self.name, hours=24)
        args = (failed, len(by_account), s.accounts_of_one, None, suggestion, o)
        return (_finding(self.name, subject, title, *args),)

    def _of_all(self, tried: Attempt, o: Observation) -> Sequence[Finding]:
        s = self._settings
        seconds = s.window.total_seconds()
        every = self._all.touch(ALL)
        self._roll(every, int(tried.time // seconds))
        every.tries = [t for t in every.tries if t[0] > tried.time - seconds][-MAX_FAILED + 1 :]
        every.tries.append((tried.time, tried.account, tried.address, tried.record))
        by_account = Counter(account for _, account, _, _ in every.tries)
        few = {account for account, count in by_account.items() if count <= s.per_account}
        threshold = max(float(s.accounts), s.times_usual * every.usual)
        if every.told and tried.time - every.told < seconds:
            return ()
        addresses = Counter(address for _, account, address, _ in every.tries if account in few)
        if len(few) < threshold or len(addresses) < s.addresses:
            return ()
        every.told = tried.time
        busiest = min(addresses, key=lambda a: (-addresses[a], a))
        subject = Subject(SubjectKind.ADDRESS, busiest)
        failed = [_Try(t, account, True, record) for t, account, _, record in every.tries if account in few]
        title = (
            f"{len(few)} accounts failed at most {s.per_account} times each in {spoken(s.window)},"
            f" from {len(addresses)} addresses"
        )
        suggestion = (
            "everyhop log show --kind token --denied; ask for a second factor; block addresses one by one"
        )
        args = (failed, len(few), threshold, every.usual, suggestion, o)
        return (_finding(self.name, subject, title, *args),)

    @staticmethod
    def _roll(every: _All, window: int) -> None:
        """Let what was counted in the windows before become part of what is usual."""
        if every.window == 0:
            every.window = window
        while every.window < window:
            seen = len({account for _, account, _, _ in every.tries})
            every.usual = _FORGET * every.usual + (1 - _FORGET) * seen
            every.tries = []
            every.window = window if every.usual < 0.01 else every.window + 1  # noqa: PLR2004

    def state(self) -> Mapping[str, bytes]:
        """Return the attempts of each address, and of all."""
        return self._addresses.state() | self._all.state()

    def restore(self, state: Mapping[str, bytes]) -> None:
        """Take them back."""
        self._all.restore({key: value for key, value in state.items() if key == ALL})
        self._addresses.restore({key: value for key, value in state.items() if key != ALL})


def _finding(
    detector: str,
    subject: Subject,
    title: str,
    failed: list[_Try],
    observed: float,
    threshold: float,
    baseline: float | None,
    suggestion: str,
    o: Observation,
) -> Finding:
    return Finding(
        detector=detector,
        severity=Severity.HIGH,
        subject=subject,
        title=title,
        evidence=some_of(t.record for t in failed),
        first=moment(failed[0].time),
        last=o.time,
        observed=float(observed),
        threshold=float(threshold),
        baseline=baseline,
        unit="accounts",
        count=len(failed),
        suggestion=suggestion,
    )
