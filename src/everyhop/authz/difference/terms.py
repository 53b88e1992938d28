# SPDX-License-Identifier: Apache-2.0
"""What changes besides answers: tokens, bodies, users that are asked for, who is believed, how workloads are recognised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.authz.difference.model import TermChange, Weight
from everyhop.policy.model import Protocol, TokenMode, UserMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.authz.difference.callers import CallerClass
    from everyhop.authz.difference.paths import Pair
    from everyhop.authz.engine import Engine
    from everyhop.policy.model import Operation, Service, Snapshot, UserIssuer

_TOKENS: Final = {TokenMode.NONE: 0, TokenMode.SERVICE: 1, TokenMode.OPERATION: 2}
_USERS: Final = {  # who has to be there counts first, then whether claims are believed
    (UserMode.NONE, UserMode.OPTIONAL): Weight.LOOSER,
    (UserMode.NONE, UserMode.REQUIRED): Weight.TIGHTER,
    (UserMode.OPTIONAL, UserMode.REQUIRED): Weight.TIGHTER,
    (UserMode.OPTIONAL, UserMode.NONE): Weight.TIGHTER,
}


def operation_terms(target: str, old: Operation, new: Operation) -> Iterator[TermChange]:
    """Yield what a call of an operation must carry, where that changes."""
    subject = f"{target}.{new.name}"
    if old.token is not new.token:
        yield _term(subject, "token", old.token, new.token, _TOKENS[new.token] > _TOKENS[old.token])
    if old.once is not new.once:
        words = {False: "a token is good for its life", True: "a token is good for one call"}
        yield _term(subject, "once", words[old.once], words[new.once], new.once)
    if old.body != new.body:
        words_of = [("not checked" if side.body is None else "checked by a schema") for side in (old, new)]
        weight = Weight.UNSURE
        if old.body is None or new.body is None:
            weight = Weight.TIGHTER if old.body is None else Weight.LOOSER
        yield TermChange(
            subject=subject,
            what="body",
            before=words_of[0],
            after="checked by another schema" if weight is Weight.UNSURE else words_of[1],
            weight=weight,
        )
    if old.protocol is not new.protocol:
        weight = Weight.UNSURE
        if Protocol.WEBSOCKET in {old.protocol, new.protocol}:
            weight = Weight.LOOSER if new.protocol is Protocol.WEBSOCKET else Weight.TIGHTER
        yield TermChange(
            subject=subject, what="protocol", before=old.protocol, after=new.protocol, weight=weight
        )


def user_term(sides: tuple[Engine, Engine], pair: Pair, who: CallerClass) -> TermChange | None:
    """Return the change of whether a call is made for a user, for callers who may call under both policies."""
    modes = []
    for side, door in zip(sides, (pair.old, pair.new), strict=True):
        name = side.name_of(who.ask)
        if door is None or name is None or not door.access.allows(name, is_probe=door.is_probe):
            return None
        modes.append(door.access.user_mode(name))
    before, after = modes
    if before is after:
        return None
    weight = _USERS.get((before, after), Weight.LOOSER)
    door_name = "" if pair.new is None else pair.new.name
    return TermChange(
        subject=f"{pair.target}.{door_name}",
        what="user",
        before=before,
        after=after,
        weight=weight,
        callers=who.callers,
    )


def trust_terms(old: Snapshot, new: Snapshot) -> Iterator[TermChange]:
    """Yield how workloads are recognised and whose users are believed, where that changes."""
    for name in sorted({*old.services} & {*new.services}):
        if old.services[name].workload != new.services[name].workload:
            yield _workload(name, old.services[name], new.services[name])
    issuers = [{issuer.issuer: issuer for issuer in side.user_issuers} for side in (old, new)]
    for url in sorted({*issuers[0], *issuers[1]}):
        before, after = issuers[0].get(url), issuers[1].get(url)
        if before == after:
            continue
        weight = Weight.TIGHTER if after is None else Weight.LOOSER if before is None else Weight.UNSURE
        if before is not None and after is not None and _is_part(after, before):
            weight = Weight.TIGHTER
        yield TermChange(
            subject=url,
            what="issuer",
            before="not believed" if before is None else _issuer(before),
            after="not believed" if after is None else _issuer(after),
            weight=weight,
        )
    if old.readers != new.readers:
        was, will = (", ".join(sorted(side.readers)) or "nobody" for side in (old, new))
        yield _term("audit log", "readers", was, will, is_tighter=new.readers <= old.readers)


def _term(subject: str, what: str, before: str, after: str, is_tighter: bool) -> TermChange:  # noqa: FBT001  # the one outcome
    weight = Weight.TIGHTER if is_tighter else Weight.LOOSER
    return TermChange(subject=subject, what=what, before=before, after=after, weight=weight)


def _workload(name: str, old: Service, new: Service) -> TermChange:
    """Return the change; it is tighter where each new alternative asks for all that an old one asked for."""
    is_tighter = all(any(before <= after for before in old.workload) for after in new.workload)
    return _term(name, "workload", _alternatives(old), _alternatives(new), is_tighter)


def _alternatives(service: Service) -> str:
    shown = (" + ".join(sorted(map(str, selectors))) for selectors in service.workload)
    return " | ".join(shown) or "nobody"


def _is_part(part: UserIssuer, whole: UserIssuer) -> bool:
    return (
        set(part.audiences) <= set(whole.audiences)
        and set(part.algorithms) <= set(whole.algorithms)
        and (part.jwks, part.roles) == (whole.jwks, whole.roles)
    )


def _issuer(issuer: UserIssuer) -> str:
    keys = issuer.jwks or "by discovery"
    return (
        f"audience {', '.join(issuer.audiences)}; keys {keys}; roles in {'.'.join(issuer.roles)}; "
        f"{', '.join(issuer.algorithms)}"
    )
