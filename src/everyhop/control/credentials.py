# SPDX-License-Identifier: Apache-2.0
"""What a call shows besides its certificate: judged where Envoy asks, by the same verifier as everywhere.

At an ingress: the access token and the user's transaction token.  At an egress: a fresh token for one call.  At
an edge: an outside credential, exchanged by the server for a transaction token.  Everything here refuses by
raising: TokenError tells the caller a stable code, any other error tells it nothing.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

from everyhop.agent import TokenWish
from everyhop.anomaly.looking import BlockedError, refuse_blocked
from everyhop.anomaly.model import Blocks
from everyhop.apikeys.format import PREFIX, parse_key
from everyhop.control.deciding import FactsDenied, Shown, Why, decide_call, facts_of_headers, user_of
from everyhop.control.messages import ExchangeTokenRequest
from everyhop.core.errors import AccessDenied, InputError, TokenError, Unavailable
from everyhop.policy.facts import Context
from everyhop.policy.model import OUTSIDE, TokenMode, UserMode
from everyhop.tokens.codes import TokenCode
from everyhop.tokens.expectation import Expectation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from everyhop.agent import ServiceTokens
    from everyhop.authz import Requirement
    from everyhop.control.messages import ExchangeTokenResponse
    from everyhop.control.policy_view import PolicyView
    from everyhop.core.clock import Clock
    from everyhop.tokens.access import AccessToken
    from everyhop.tokens.transaction import TxnToken
    from everyhop.tokens.verifier import TokenVerifier

USER_HEADER: Final = "x-everyhop-user"
ROLES_HEADER: Final = "x-everyhop-user-roles"
TXN_HEADER: Final = "txn-token"
AUTHORIZATION: Final = "authorization"

TXN_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:txn_token"  # noqa: S105  # a type
API_KEY_TYPE: Final = "urn:everyhop:params:oauth:token-type:api_key"
USER_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"  # noqa: S105  # a type

EDGE_SECONDS: Final = 30.0
MAX_EDGE_ENTRIES: Final = 4096
_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F))).replace("%", "").replace(",", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A call that may go on: headers to set and to remove.

    ``until`` (epoch seconds) is how long the same credentials need not be asked about again; None: each time.
    ``user`` is for the record; so are ``api_key``, its public part, and ``why``, where facts of the call decided.
    """

    headers: dict[str, str] = field(default_factory=dict, repr=False)
    remove: tuple[str, ...] = ()
    until: int | None = None
    user: str | None = None
    api_key: str | None = None
    why: Why | None = None


class Exchanger(Protocol):
    """The server, as far as exchanges are concerned."""

    @property
    def agent(self) -> str:
        """Return the name of this agent."""

    async def exchange(self, request: ExchangeTokenRequest) -> ExchangeTokenResponse:
        """Exchange a token; raises TokenError or AccessDenied when refused, Unavailable."""


@dataclass(frozen=True, slots=True)
class _Exchanged:
    token: str
    verified: TxnToken
    until: float


class Credentials:
    """Judges calls under the policy and the token truth of the moment.  All use is from one event loop."""

    def __init__(
        self,
        *,
        tokens: ServiceTokens | None,
        exchanger: Exchanger | None,
        spend: Callable[[AccessToken], Awaitable[None]],
        clock: Clock,
        blocks: Callable[[], Blocks] = Blocks,
    ) -> None:
        """``spend`` uses a token up, or raises TokenError; it is atomic over every replica that shares it.

        Where only calls that arrive are judged, there are no ``tokens`` and no ``exchanger``.  ``blocks`` are those
        of the moment; who is blocked is refused with BlockedError, whatever they show.
        """
        self._blocks = blocks
        self._tokens = tokens
        self._exchanger = exchanger
        self._spend = spend
        self._clock = clock
        self._view: PolicyView | None = None
        self._before: PolicyView | None = None
        self._held: frozenset[str] = frozenset()
        self._verifier: TokenVerifier | None = None
        self._exchanged: OrderedDict[bytes, _Exchanged] = OrderedDict()

    def apply_policy(self, view: PolicyView, held: frozenset[str] = frozenset()) -> None:
        """Judge by this policy from now on, but calls at sidecars of ``held`` services as they still do themselves."""
        if view is not self._view:
            self._before = self._view
            self._view = view
        self._held = held
        self._exchanged.clear()

    def apply_verifier(self, verifier: TokenVerifier) -> None:
        """Judge tokens by this verifier from now on: other keys, or other revocations."""
        self._verifier = verifier
        self._exchanged.clear()

    # -- ingress

    async def ingress(self, service: str, shown: Shown) -> Passed:
        """Judge a call that the policy lets in: access token, user, single use, in this order."""
        self._refuse_blocked(identity=shown.caller)
        view = self._view_at(service)
        needs = view.requirement(shown.caller, service, shown.operation)
        asks = shown.asks or view.asks(shown.caller, service, shown.operation)
        access = self._access(service, shown, needs)
        user = self._user(shown, needs, asks=asks)
        for token in (access, user):
            self._refuse_blocked(subject=None if token is None else token.subject)
        why = None
        if asks:
            why, believes_user = self._decide(view, service, shown, user)
            user = user if believes_user else None
        if needs.once and access is not None:
            await self._spend(access)
        ends = [token.expires_at for token in (access, user) if token is not None]
        return Passed(
            headers={} if user is None else user_headers(user),
            remove=() if user is not None else (TXN_HEADER, USER_HEADER, ROLES_HEADER),
            until=None if needs.once or asks or not ends else min(ends),
            user=None if user is None else user.subject,
            why=why,
        )

    def _decide(
        self, view: PolicyView, service: str, shown: Shown, user: TxnToken | None
    ) -> tuple[Why, bool]:
        """Have the facts of a call decide; return why it may pass, and whether its user is believed.

        Raises AccessDenied with the decision.  An API key's transaction is nobody: it has no user.
        """
        context = Context(
            now=self._clock.now(),
            user=None
            if user is None or not user.is_person
            else user_of(user, view.snapshot.attributes.of("user")),
            headers=facts_of_headers(shown.fields, view.snapshot.attributes.headers),
            source_ip=shown.source,
        )
        why = decide_call(view.engine, service, shown, context)
        if not why.decision.is_allowed:
            raise FactsDenied(why)
        rule = view.engine.rule(why.decision.rule or "")
        return why, rule is None or rule.user is not UserMode.NONE

    def _access(self, service: str, shown: Shown, needs: Requirement) -> AccessToken | None:
        if needs.token is TokenMode.NONE:
            return None
        return self._now()[1].access(
            shown.token,
            Expectation(
                audience=service,
                operation=shown.operation,
                per_operation=needs.token is TokenMode.OPERATION,
                peer=shown.caller,
                x5t=shown.x5t,
            ),
        )

    def _user(self, shown: Shown, needs: Requirement, *, asks: bool) -> TxnToken | None:
        """Return the verified user; where facts decide, they decide about an absent one too."""
        if needs.user is UserMode.NONE:
            return None
        if shown.txn is None:
            if needs.user is UserMode.REQUIRED and not asks:
                raise TokenError(TokenCode.USER_REQUIRED, "no Txn-Token")
            return None
        user = self._now()[1].transaction(shown.txn)
        _demand_person(user, needs)
        return user

    # -- egress

    async def egress(self, service: str, target: str, operation: str, generation: str) -> Passed:
        """Return a fresh token for one call of ``service``.

        ``generation`` is the start of the thumbprint of the certificate that will carry it.
        """
        if self._tokens is None:
            raise Unavailable("there are no tokens here", retry=False)
        view = self._view_at(service)
        caller = view.snapshot.services[service].spiffe_id
        self._refuse_blocked(identity=str(caller))
        needs = view.requirement(str(caller), target, operation)
        if needs.token is TokenMode.NONE:
            return Passed(remove=(AUTHORIZATION,))
        x5t = self._tokens.certificate_of(caller, generation) if generation else None
        if x5t is None:
            raise Unavailable("the certificate of this connection is not in use any more")
        wish = TokenWish(
            spiffe_id=caller,
            target=target,
            operation=operation if needs.token is TokenMode.OPERATION else None,
            x5t=x5t,
            scope=frozenset({f"{target}.{operation}"}),
        )
        token = await self._tokens.once(wish)
        return Passed(headers={AUTHORIZATION: f"Bearer {token.token}"})

    # -- edge

    async def edge(self, service: str, shown: Shown) -> Passed:
        """Exchange an outside credential; what the call may do is the exchanged token's scope."""
        view = self._now()[0]
        needs = view.requirement(OUTSIDE, service, shown.operation)
        if shown.token is None:
            raise TokenError(TokenCode.MISSING_TOKEN, "no Authorization")
        key = api_key_of(shown.token)
        self._refuse_blocked(address=shown.source, api_key=key)
        exchanged = await self._exchange(view, service, shown)
        user = exchanged.verified
        self._refuse_blocked(subject=user.subject)
        # A user's transaction without a stated purpose is for anything that the policy opens; a key's never is.
        if (user.scope or not user.is_person) and f"{service}.{shown.operation}" not in user.scope:
            raise TokenError(TokenCode.INSUFFICIENT_SCOPE, "the credential is not for this operation")
        _demand_person(user, needs)
        why, believes_user = None, needs.user is not UserMode.NONE
        if shown.asks or view.asks(OUTSIDE, service, shown.operation):
            why, believes_user = self._decide(view, service, shown, user)
        remove = (AUTHORIZATION,)
        if not believes_user:
            return Passed(
                remove=(*remove, TXN_HEADER, USER_HEADER, ROLES_HEADER),
                user=user.subject,
                api_key=key,
                why=why,
            )
        return Passed(
            headers={TXN_HEADER: exchanged.token, **user_headers(user)},
            remove=remove,
            user=user.subject,
            api_key=key,
            why=why,
        )

    def _refuse_blocked(
        self,
        *,
        identity: str | None = None,
        subject: str | None = None,
        api_key: str | None = None,
        address: str | None = None,
    ) -> None:
        blocks = self._blocks()
        if blocks.by_subject:
            refuse_blocked(
                blocks,
                self._clock.now(),
                identity=identity,
                subject=subject,
                api_key=api_key,
                address=address,
            )

    async def _exchange(self, view: PolicyView, service: str, shown: Shown) -> _Exchanged:
        """Return the transaction token for a credential; the same credential costs one exchange in 30 seconds."""
        token = shown.token or ""
        key = hashlib.sha256("\0".join((service, shown.source or "", token)).encode()).digest()
        now = self._clock.now().timestamp()
        held = self._exchanged.get(key)
        if held is not None and now < held.until:
            return held
        if self._exchanger is None:
            raise Unavailable("nothing is exchanged here", retry=False)
        verifier = self._now()[1]
        is_key = token.startswith(f"{PREFIX}_")
        request = ExchangeTokenRequest(
            agent=self._exchanger.agent,
            spiffe_id=str(view.snapshot.services[service].spiffe_id),
            subject_token=token,
            subject_token_type=API_KEY_TYPE if is_key else USER_TOKEN_TYPE,
            requested_token_type=TXN_TOKEN_TYPE,
            source=shown.source,
        )
        try:
            if is_key:
                parse_key(token)  # its checksum tells a guess from a key before anybody is asked
            answer = await self._exchanger.exchange(request)
        except BlockedError:
            raise
        except (AccessDenied, InputError) as error:
            raise TokenError(TokenCode.TOKEN_INVALID, error.message) from error
        verified = self._now()[1].transaction(answer.token)
        found = _Exchanged(answer.token, verified, min(now + EDGE_SECONDS, verified.expires_at))
        if self._verifier is verifier and self._view is view:  # else it may be what was just revoked
            self._exchanged[key] = found
            self._exchanged.move_to_end(key)
            while len(self._exchanged) > MAX_EDGE_ENTRIES:
                self._exchanged.popitem(last=False)
        return found

    def _view_at(self, service: str) -> PolicyView:
        """Return the policy that the sidecars of a service go by."""
        before = self._before if service in self._held else None
        return before or self._now()[0]

    def _now(self) -> tuple[PolicyView, TokenVerifier]:
        if self._view is None or self._verifier is None:
            raise Unavailable("the agent is starting")
        return self._view, self._verifier


def _demand_person(user: TxnToken, needs: Requirement) -> None:
    """Refuse a client with an API key where the policy requires a user: a key is nobody."""
    if needs.user is UserMode.REQUIRED and not user.is_person:
        raise TokenError(TokenCode.USER_REQUIRED, "an API key's transaction has no user")


def api_key_of(token: str) -> str | None:
    """Return the public part of what is well-formed as an API key of ours, None for every other credential.

    That a key is well-formed proves nothing: only its digest is anybody's.
    """
    if not token.startswith(f"{PREFIX}_"):
        return None
    try:
        return parse_key(token).lookup
    except InputError:
        return None


def user_headers(user: TxnToken) -> dict[str, str]:
    """Return the headers that tell an application of its user: percent-encoded UTF-8; roles separated by commas."""
    roles = ",".join(quote(role, safe=_PRINTABLE) for role in user.roles)
    return {USER_HEADER: quote(user.subject, safe=_PRINTABLE), ROLES_HEADER: roles}
