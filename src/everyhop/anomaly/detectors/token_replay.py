# SPDX-License-Identifier: Apache-2.0
"""Credentials that show up where they cannot be: used twice, with another certificate, after their end, in two places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from everyhop.anomaly.detectors._memory import Memory
from everyhop.anomaly.detectors._telling import block, moment, named, revoke, spoken, why
from everyhop.anomaly.finding import Finding, Severity
from everyhop.anomaly.model import Subject, SubjectKind
from everyhop.anomaly.observation import Outcome
from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from everyhop.anomaly.detectors.settings import TokenReplay as Settings
    from everyhop.anomaly.observation import Observation

MAX_SUBJECTS: Final = 4096
MAX_TOKENS: Final = 4096
MAX_RECORDS: Final = 16
PRESENTED: Final = "presented"
"""In the detail of a record: what tells one presented token from others, and is none."""

_OF_SUBJECT: Final = "s "
_OF_TOKEN: Final = "t "  # noqa: S105  # a prefix of keys


class _Sign(NamedTuple):
    severity: Severity
    at_least: int
    words: str


# Refusals of a verifier, by their code.  How many of them within a window make a finding is one, except for what also
# happens to honest clients: a token that was revoked while they held it, which they try again until they are told.
_REVOKED: Final = "TOKEN_REVOKED"
_SIGNS: Final = {
    "TOKEN_REPLAYED": _Sign(Severity.MEDIUM, 1, "used a token twice that is good for one call"),
    "BINDING_MISMATCH": _Sign(
        Severity.HIGH, 1, "showed a token that is bound to somebody else's certificate or key"
    ),
    _REVOKED: _Sign(Severity.MEDIUM, 0, "goes on using a token that was revoked"),
}


class _Subject(msgspec.Struct):
    records: dict[str, list[str]] = {}  # by code; msgspec copies an empty default
    last: dict[str, float] = {}
    first: dict[str, float] = {}
    told: dict[str, float] = {}


class _Token(msgspec.Struct):
    uses: list[tuple[float, str, str]] = []  # time, address, record; msgspec copies an empty default
    told: float = 0.0


class TokenReplay:
    """Finds replays by what verifiers refused, and by one credential that comes from two addresses in turn.

    A phone that leaves a network shows its token from a second address, and stays there; a thief and the owner take turns.
    So two addresses are nothing, and first, second and first again within the window are a finding.  API keys are not
    watched like that: a fleet of clients may share one.
    """

    name: Final = "token-replay"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._subjects = Memory(_Subject, limit=MAX_SUBJECTS)
        self._tokens = Memory(_Token, limit=MAX_TOKENS)

    def observe(self, observation: Observation, now: datetime) -> Sequence[Finding]:
        """Take one observation; at most one finding."""
        del now
        o = observation
        if o.outcome is Outcome.ALLOWED:
            return self._two_places(o)
        code = o.reason if o.kind == "decision" else o.detail.get("code")
        sign = _SIGNS.get(code) if isinstance(code, str) else None
        if sign is None or o.point == "sdk":
            return ()
        subject = _shown_by(o)
        return () if subject is None else self._refused(subject, str(code), sign, o)

    def _refused(self, subject: Subject, code: str, sign: _Sign, o: Observation) -> Sequence[Finding]:
        time, window = o.time.timestamp(), self._settings.window.total_seconds()
        seen = self._subjects.touch(_OF_SUBJECT + str(subject))
        if time - seen.last.get(code, 0.0) > window:
            seen.records[code], seen.first[code] = [], time
            seen.told.pop(code, None)
        seen.last[code] = time
        seen.records[code] = [*seen.records[code], o.record][-MAX_RECORDS:]
        count, at_least = len(seen.records[code]), sign.at_least or self._settings.revoked
        if count < at_least or code in seen.told:
            return ()
        seen.told[code] = time
        return (
            Finding(
                detector=self.name,
                severity=sign.severity,
                subject=subject,
                title=f"{named(subject)} {sign.words}",
                evidence=tuple(seen.records[code]),
                first=moment(seen.first[code]),
                last=o.time,
                observed=float(count),
                threshold=float(at_least),
                unit=f"refusals with {code}",
                count=count,
                suggestion=f"{why(o.record)}; {block(subject, 'a replayed token')}",
                target=o.target,
                operation=o.operation,
            ),
        )

    def _two_places(self, o: Observation) -> Sequence[Finding]:
        presented = o.detail.get(PRESENTED)
        if not isinstance(presented, str) or o.address is None or o.api_key is not None:
            return ()
        time, window = o.time.timestamp(), self._settings.window.total_seconds()
        token = self._tokens.touch(_OF_TOKEN + presented)
        uses = [use for use in token.uses if use[0] > time - window]
        if not uses or uses[-1][1] != o.address:
            uses.append((time, o.address, o.record))
        token.uses = uses[-MAX_RECORDS:]
        turns = [address for _, address, _ in token.uses]
        if token.told > time - window or len(turns) - len(set(turns)) < 1:
            return ()
        token.told = time
        user = o.user or o.detail.get("subject")
        subject = _subject(SubjectKind.USER, user if isinstance(user, str) else None) or Subject(
            SubjectKind.ADDRESS, o.address
        )
        return (
            Finding(
                detector=self.name,
                severity=Severity.HIGH,
                subject=subject,
                title=f"one token is used from {len(set(turns))} addresses in turn within {spoken(self._settings.window)}",
                evidence=tuple(record for _, _, record in token.uses),
                first=moment(token.uses[0][0]),
                last=o.time,
                observed=float(len(turns) - 1),
                threshold=2.0,
                unit="changes of address",
                count=len(turns),
                suggestion=f"{revoke()}; ask the user",
                target=o.target,
            ),
        )

    def state(self) -> Mapping[str, bytes]:
        """Return what was seen of each subject and token lately."""
        return self._subjects.state() | self._tokens.state()

    def restore(self, state: Mapping[str, bytes]) -> None:
        """Take it back."""
        self._subjects.restore({k: v for k, v in state.items() if k.startswith(_OF_SUBJECT)})
        self._tokens.restore({k: v for k, v in state.items() if k.startswith(_OF_TOKEN)})


def _shown_by(o: Observation) -> Subject | None:
    """Return who showed it: whom the record is held against, else the address that it came from."""
    if o.subjects:
        return o.subjects[0]
    return _subject(SubjectKind.ADDRESS, o.address) or _subject(SubjectKind.IDENTITY, o.caller)


def _subject(kind: SubjectKind, value: str | None) -> Subject | None:
    try:
        return None if value is None else Subject.of(kind, value)
    except InputError:
        return None
