# SPDX-License-Identifier: Apache-2.0
"""RequestAuthentication: what becomes of a request's token (pilot/pkg/security/authn/policy_applier.go; Envoy's jwt_authn).

A request without a token where a rule looks for one passes, with no claims: only an AuthorizationPolicy can demand one.  With a
token it passes only if some rule that looks at that place believes it: real signature, issuer, time and audience.

A token stands in ``authorization: Bearer`` unless a header or the query of the request holds :data:`PLACEHOLDER`, which then is the
place of :attr:`Request.token`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from everyhop.evaluators.istio.attachment import Attachment, attachment_of
from everyhop.evaluators.istio.strict import Part, spec_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.evaluators.model import Request, Token
    from everyhop.manifests import Manifest

PLACEHOLDER: Final = "{token}"
"""Stands in a header's value or a query for the request's token."""
_BEARER: Final = "Bearer "
_ALWAYS_LISTS: Final = ("permission", "scope")
_DURATION: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h)")


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRule:
    """One issuer that is believed, and where its tokens are looked for (nothing: the usual places)."""

    issuer: str
    audiences: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]  # name, prefix
    params: tuple[str, ...]
    cookies: tuple[str, ...]
    lists: tuple[str, ...]
    has_other_keys: bool  # its keys are known not to be the issuer's

    def looks_at(self, request: Request) -> bool:
        """Tell whether the request's token stands where this rule looks."""
        placed = _placed(request)
        is_usual = not (self.headers or self.params or self.cookies)
        wanted = (("authorization", _BEARER),) if is_usual else self.headers
        if any(_starts(value, prefix) for name, prefix in wanted for value in placed.get(name, ())):
            return True
        query = request.path.partition("?")[2].split("&")
        params = ("access_token",) if is_usual else self.params
        if any(f"{name}={PLACEHOLDER}" in query for name in params):
            return True
        cookies = {one.strip() for value in placed.get("cookie", ()) for one in value.split(";")}
        return any(f"{name}={PLACEHOLDER}" in cookies for name in self.cookies)

    def believes(self, token: Token) -> bool:
        """Tell whether a token is good here; without an issuer in the rule any is."""
        if (
            token.is_forged is not self.has_other_keys
            or token.is_expired
            or (self.issuer and token.issuer != self.issuer)
        ):
            return False
        return not self.audiences or bool(set(self.audiences) & set(token.audiences))

    def payload(self, token: Token) -> dict[str, Any]:
        """Return the claims as filters see them: those with spaces between their words as lists."""
        found: dict[str, Any] = {
            **token.claims,
            "iss": token.issuer,
            "sub": token.subject,
            "aud": list(token.audiences),
        }
        for name in (*_ALWAYS_LISTS, *self.lists):
            if isinstance(found.get(name), str):
                found[name] = found[name].split(" ")
        return found


@dataclass(frozen=True, slots=True)
class Authentication:
    """One RequestAuthentication."""

    manifest: Manifest
    attachment: Attachment
    rules: tuple[JwtRule, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the token: refused, or passed with its claims (None: no claims)."""

    is_refused: bool
    claims: Mapping[str, Any] | None = None


def verdict(rules: Iterable[JwtRule], request: Request) -> Verdict:
    """Return what the rules of all policies that attach make of a request's token.

    A CORS preflight passes without being looked at, as Istio configures it.
    """
    if request.token is None or _is_preflight(request):
        return Verdict(is_refused=False)
    looking = [rule for rule in rules if rule.looks_at(request)]
    if not looking:
        return Verdict(is_refused=False)
    for rule in sorted(looking, key=lambda one: one.issuer):
        if rule.believes(request.token):
            return Verdict(is_refused=False, claims=rule.payload(request.token))
    return Verdict(is_refused=True)


def authentication_of(manifest: Manifest, jwks_uris: Mapping[str, str]) -> Authentication:
    """Read a RequestAuthentication; ``jwks_uris`` says where the keys of issuers really are, as far as that is known.

    Raises InputError for unknown fields and for what Istio's validation refuses.
    """
    spec = spec_of(manifest)
    spec.only("jwtRules", "selector", "targetRef", "targetRefs")
    rules = tuple(_jwt_rule(part, jwks_uris) for part in spec.parts("jwtRules") or ())
    return Authentication(manifest, attachment_of(spec), rules)


def _jwt_rule(part: Part, jwks_uris: Mapping[str, str]) -> JwtRule:
    part.only(
        "issuer",
        "audiences",
        "jwksUri",
        "jwks",
        "fromHeaders",
        "fromParams",
        "fromCookies",
        "outputPayloadToHeader",
        "outputClaimToHeaders",
        "forwardOriginalToken",
        "timeout",
        "spaceDelimitedClaims",
    )
    uri = part.text("jwksUri")
    if not part.text("issuer") and not uri:
        raise part.wrong("a rule has an issuer or a jwksUri")
    if uri and not uri.startswith(("https://", "http://")):
        raise part.wrong("jwksUri is of http or https")
    timeout = part.text("timeout")
    if timeout and not _DURATION.fullmatch(timeout):
        raise part.wrong("timeout is no duration")
    headers = []
    for one in part.parts("fromHeaders") or ():
        one.only("name", "prefix")
        if not one.text("name"):
            raise one.wrong("a header has a name")
        headers.append((one.text("name").lower(), one.text("prefix")))
    return JwtRule(
        issuer=part.text("issuer"),
        audiences=part.texts("audiences"),
        headers=tuple(headers),
        params=part.texts("fromParams"),
        cookies=part.texts("fromCookies"),
        lists=part.texts("spaceDelimitedClaims"),
        # Without a word of keys Istio asks the issuer itself; keys written out are nobody's that we know.
        has_other_keys=part.text("issuer") in jwks_uris
        and (bool(part.text("jwks")) or uri not in {"", jwks_uris[part.text("issuer")]}),
    )


def _placed(request: Request) -> Mapping[str, tuple[str, ...]]:
    headers = {name.lower(): values for name, values in request.headers.items()}
    everywhere = (*(value for values in headers.values() for value in values), request.path)
    if any(PLACEHOLDER in value for value in everywhere):
        return headers
    return {**headers, "authorization": (_BEARER + PLACEHOLDER,)}


def _starts(value: str, prefix: str) -> bool:
    """The prefix may stand anywhere before the token, as Envoy looks for it; without one the value is the token."""
    if not prefix:
        return value.strip() == PLACEHOLDER
    _, found, rest = value.partition(prefix)
    return bool(found) and rest.strip().startswith(PLACEHOLDER)


def _is_preflight(request: Request) -> bool:
    headers = {name.lower() for name in request.headers}
    return request.method == "OPTIONS" and {"origin", "access-control-request-method"} <= headers
