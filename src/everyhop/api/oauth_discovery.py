# SPDX-License-Identifier: Apache-2.0
"""What others read before they trust: the JWKS (RFC 7517) and the metadata documents (RFC 8414, OIDC Discovery)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

JWKS_PATH: Final = "/jwks"
TOKEN_PATH: Final = "/oauth/token"  # noqa: S105  # a path
INTROSPECT_PATH: Final = "/oauth/introspect"
REVOKE_PATH: Final = "/oauth/revoke"
OAUTH_WELL_KNOWN: Final = "/.well-known/oauth-authorization-server"
OIDC_WELL_KNOWN: Final = "/.well-known/openid-configuration"

CLIENT_CREDENTIALS: Final = "client_credentials"
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105  # a name
API_KEY: Final = "urn:everyhop:params:oauth:grant-type:api-key"

_AUTH_METHODS: Final = ("spiffe_x509", "tls_client_auth", "spiffe_jwt")
_PROOF_ALGORITHMS: Final = ("ES256", "RS256", "EdDSA")
_NOT_MODIFIED: Final = 304
_TAG_DIGITS: Final = 32


class Truth(Protocol):
    """What verifiers need to know, at one moment (:class:`everyhop.issuing.TokenTruth`)."""

    @property
    def jwks(self) -> bytes:
        """Return the JWK Set as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where an issuer is: its URL, and the URL under which this machine reaches it."""

    issuer: str
    local: str

    @property
    def prefix(self) -> str:
        """Return the path of the issuer; empty for most."""
        return urlsplit(self.issuer).path

    def urls(self, path: str) -> frozenset[str]:
        """Return every URL of an endpoint: as the metadata says it, and as this machine reaches it."""
        return frozenset({self.issuer + path, self.local + path})

    def paths(self, path: str) -> tuple[str, ...]:
        """Return the paths on which an endpoint is served; a prefix comes before it."""
        return tuple(dict.fromkeys([path, self.prefix + path]))

    def well_known(self, path: str) -> tuple[str, ...]:
        """Return the paths of a metadata document: RFC 8414 section 3.1 appends the prefix, OIDC puts it before."""
        return tuple(dict.fromkeys([path, path + self.prefix, self.prefix + path]))


class Discovery:
    """Answers everybody; each answer is made from the state as it is."""

    def __init__(
        self, *, endpoints: Endpoints, truth: Callable[[], Awaitable[Truth]], max_age_seconds: int
    ) -> None:
        """``truth`` reads the state as it is now; it raises Unavailable while there is none."""
        self._endpoints = endpoints
        self._truth = truth
        self._cache_control = f"public, max-age={max_age_seconds}"

    async def jwks(self, request: Request) -> Response:
        """Return the JWKS, rendered from the state, so that a key that was withdrawn is gone at once."""
        truth = await self._truth()
        return self._public(request, truth.jwks, "application/jwk-set+json")

    async def oauth(self, request: Request) -> Response:
        """Return the authorization server's metadata (RFC 8414 section 2)."""
        return self._public(request, _encode(self._metadata()), "application/json")

    async def openid(self, request: Request) -> Response:
        """Return the same for relying parties that look for OpenID Connect.

        We sign in nobody: what can be verified with this document are tokens.
        """
        document = {
            **self._metadata(),
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": _algorithms(await self._truth()),
        }
        return self._public(request, _encode(document), "application/json")

    def _metadata(self) -> dict[str, object]:
        issuer = self._endpoints.issuer
        return {
            "issuer": issuer,
            "token_endpoint": issuer + TOKEN_PATH,
            "jwks_uri": issuer + JWKS_PATH,
            "introspection_endpoint": issuer + INTROSPECT_PATH,
            "revocation_endpoint": issuer + REVOKE_PATH,
            "grant_types_supported": [CLIENT_CREDENTIALS, TOKEN_EXCHANGE, API_KEY],
            # There is no authorization endpoint; the member is required, and readers refuse an empty list.
            "response_types_supported": ["none"],
            "token_endpoint_auth_methods_supported": list(_AUTH_METHODS),
            "token_endpoint_auth_signing_alg_values_supported": ["ES256"],
            "introspection_endpoint_auth_methods_supported": list(_AUTH_METHODS),
            "introspection_endpoint_auth_signing_alg_values_supported": ["ES256"],
            "revocation_endpoint_auth_methods_supported": list(_AUTH_METHODS),
            "revocation_endpoint_auth_signing_alg_values_supported": ["ES256"],
            "tls_client_certificate_bound_access_tokens": True,
            "dpop_signing_alg_values_supported": list(_PROOF_ALGORITHMS),
        }

    def _public(self, request: Request, body: bytes, media_type: str) -> Response:
        tag = f'"{hashlib.sha256(body).hexdigest()[:_TAG_DIGITS]}"'
        headers = {
            "cache-control": self._cache_control,
            "etag": tag,
            "access-control-allow-origin": "*",  # public documents; nothing here looks at cookies
            "x-content-type-options": "nosniff",
        }
        if _is_known(request, tag):
            return Response(status_code=_NOT_MODIFIED, headers=headers)
        return Response(body, headers=headers, media_type=media_type)


def _algorithms(truth: Truth) -> list[str]:
    return sorted({str(key["alg"]) for key in json.loads(truth.jwks)["keys"]})


def _is_known(request: Request, tag: str) -> bool:
    """Tell whether the reader holds this very document (RFC 9110 section 13.1.2, weak comparison)."""
    asked = ",".join(request.headers.getlist("if-none-match"))
    tags = {part.strip().removeprefix("W/") for part in asked.split(",")}
    return tag in tags or asked.strip() == "*"


def _encode(document: dict[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
