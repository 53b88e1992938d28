# SPDX-License-Identifier: Apache-2.0
"""Parameters of the token endpoint as values: which grant, for which audience, with which scope."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from everyhop.api.oauth_errors import OAuthCode, OAuthRefusal
from everyhop.api.oauth_form import required
from everyhop.issuing.requests import ExchangeRequest, MintRequest, TokenType

if TYPE_CHECKING:
    from collections.abc import Callable

    from everyhop.api.oauth_clients import Client

MAX_SCOPES: Final = 256
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*", re.ASCII)
_SPIFFE: Final = "spiffe://"
_MAX_TARGET: Final = 2048


class Target(NamedTuple):
    """The audience that is asked for: a service, and perhaps one operation of it."""

    service: str | None
    operation: str | None = None


def mint_request(
    form: dict[str, str], client: Client, service_of: Callable[[str], str | None]
) -> MintRequest:
    """Read a ``client_credentials`` request (RFC 6749 section 4.4.2, RFC 8707 section 2).

    Without ``audience`` and ``resource`` the scope may tell the service, when it names a single one.
    """
    scope = scope_of(form)
    target = target_of(form, service_of)
    if target.service is None:
        target = _told_by(scope)
    if target.service is None:
        raise OAuthRefusal(OAuthCode.INVALID_TARGET, "audience is missing: name a service")
    return MintRequest(
        caller=client.spiffe_id,
        target=target.service,
        operation=target.operation,
        scope=scope,
        x5t=client.x5t,
        jkt=client.jkt,
    )


def exchange_request(
    form: dict[str, str], client: Client, service_of: Callable[[str], str | None], *, trust_domain: str
) -> ExchangeRequest:
    """Read a token exchange (RFC 8693 section 2.1); the audience of a transaction token is the trust domain."""
    wanted = form.get("requested_token_type", TokenType.ACCESS)
    if wanted == TokenType.TRANSACTION:
        _check_domain(form, trust_domain)
        target = Target(None)
    else:
        target = target_of(form, service_of)
    return ExchangeRequest(
        caller=client.spiffe_id,
        subject_token=required(form, "subject_token"),
        subject_token_type=required(form, "subject_token_type"),
        requested_token_type=wanted,
        target=target.service,
        operation=target.operation,
        scope=scope_of(form),
        roles=_words(form, "roles"),
        x5t=client.x5t,
        jkt=client.jkt,
        actor_token=form.get("actor_token"),
        actor_token_type=form.get("actor_token_type"),
        source=_source(form),
    )


def api_key_request(form: dict[str, str], client: Client, *, trust_domain: str) -> ExchangeRequest:
    """Read the exchange of an API key that came in at the edge, for a transaction token."""
    _check_domain(form, trust_domain)
    return ExchangeRequest(
        caller=client.spiffe_id,
        subject_token=required(form, "api_key"),
        subject_token_type=TokenType.API_KEY,
        requested_token_type=TokenType.TRANSACTION,
        scope=scope_of(form),
        source=_source(form),
    )


def scope_of(form: dict[str, str]) -> frozenset[str] | None:
    """Return the scope that is asked for (RFC 6749 section 3.3), None for "whatever the policy grants"."""
    return _words(form, "scope")


def target_of(form: dict[str, str], service_of: Callable[[str], str | None]) -> Target:
    """Return the audience: ``audience`` or ``resource``, a service's name or SPIFFE ID.

    Raises OAuthRefusal ``invalid_target`` for two that differ, or for a resource with a fragment (RFC 8707 section 2).
    """
    audience, resource = form.get("audience"), form.get("resource")
    if resource is not None and "#" in resource:
        raise OAuthRefusal(OAuthCode.INVALID_TARGET, "a resource has no fragment; name the audience")
    if max(len(audience or ""), len(resource or "")) > _MAX_TARGET:
        raise OAuthRefusal(OAuthCode.INVALID_TARGET, "the audience is too long")
    targets = {_target(text, service_of) for text in (audience, resource) if text is not None}
    if len(targets) > 1:
        raise OAuthRefusal(OAuthCode.INVALID_TARGET, "a token has one audience")
    return targets.pop() if targets else Target(None)


def _target(text: str, service_of: Callable[[str], str | None]) -> Target:
    name, hash_sign, operation = text.partition("#")
    if hash_sign and not operation:
        raise OAuthRefusal(OAuthCode.INVALID_TARGET, "the operation is missing behind the number sign")
    if name.startswith(_SPIFFE):
        name = service_of(name) or name  # what nobody declares is refused under the name that was given
    return Target(name, operation or None)


def _told_by(scope: frozenset[str] | None) -> Target:
    services = {name.partition(".")[0] if "." in name else None for name in scope or ()}
    return Target(services.pop()) if len(services) == 1 else Target(None)


def _words(form: dict[str, str], name: str) -> frozenset[str] | None:
    text = form.get(name)
    if text is None:
        return None
    if not _SCOPE.fullmatch(text):
        raise OAuthRefusal(OAuthCode.INVALID_SCOPE, f"{name} is a list of words with single spaces")
    words = frozenset(text.split(" "))
    if len(words) > MAX_SCOPES:
        raise OAuthRefusal(OAuthCode.INVALID_SCOPE, f"{name} has too many words")
    return words


def _check_domain(form: dict[str, str], trust_domain: str) -> None:
    if "resource" in form or form.get("audience", trust_domain) != trust_domain:
        raise OAuthRefusal(
            OAuthCode.INVALID_TARGET, "the audience of a transaction token is the trust domain"
        )


def _source(form: dict[str, str]) -> str | None:
    """Return the address of the outside client as the service at the edge tells it."""
    text = form.get("source")
    if text is None:
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise OAuthRefusal(OAuthCode.INVALID_REQUEST, "source is no IP address") from error
