# SPDX-License-Identifier: Apache-2.0
"""What one proxy knows of one attempt when it decides."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from everyhop.core.errors import InputError
from everyhop.evaluators.model import Wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.evaluators.istio.matching import Address
    from everyhop.evaluators.model import Request

_FORWARDED = "x-forwarded-for"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Attributes of one request or connection.

    ``peer`` is the SPIFFE ID of the client certificate, "" for plaintext.  ``headers`` has pseudo headers too.  ``claims`` is what
    jwt_authn has stored of a token that it verified, None without one.  ``metadata`` is what other filters have stored.
    """

    peer: str
    source_ip: Address
    remote_ip: Address
    destination_ip: Address
    port: int
    sni: str
    is_http: bool
    path: str
    headers: Mapping[str, str]
    metadata: Mapping[str, Mapping[str, Any]]
    claims: Mapping[str, Any] | None = None

    def with_claims(self, claims: Mapping[str, Any] | None) -> Facts:
        """Return the same with what a verified token says."""
        return replace(self, claims=claims)


def facts_of(
    request: Request,
    path: str,
    *,
    peer: str | None,
    trusts_forwarded: bool,
    metadata: Mapping[str, Mapping[str, Any]],
) -> Facts:
    """Return the facts of a request whose normalised path is given.

    ``trusts_forwarded``: the proxy takes the last address of ``x-forwarded-for`` for the client's, as sidecars and waypoints do
    (``use_remote_address: false``); the caller writes it, so ``remote.ip`` is no proof there.
    Raises InputError for an address that is none.
    """
    source = _address(request.source.ip)
    headers = {name.lower(): ",".join(values) for name, values in request.headers.items()}
    remote = _forwarded(headers.get(_FORWARDED), source) if trusts_forwarded else source
    if request.wire is not Wire.TCP:
        headers |= {":method": request.method, ":path": path}
        if request.host:
            headers[":authority"] = request.host
    return Facts(
        peer=peer or "",
        source_ip=source,
        remote_ip=remote,
        destination_ip=_address(request.target.ip),
        port=request.port,
        sni=request.dns_name or "",
        is_http=request.wire is not Wire.TCP,
        path=path,
        headers=MappingProxyType(headers),
        metadata=metadata,
    )


def _address(text: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise InputError(f"this is no address: {text[:60]!r}") from error


def _forwarded(header: str | None, source: Address) -> Address:
    if header is None:
        return source
    try:
        return ipaddress.ip_address(header.rpartition(",")[2].strip())
    except ValueError:
        return source
