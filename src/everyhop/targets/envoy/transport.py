# SPDX-License-Identifier: Apache-2.0
"""TLS of a standalone Envoy: certificates from files that are watched, callers of one trust domain only.

Files rotate because two secrets name them (SDS from the file system): Envoy reads them again when a file is renamed into the
directory.  A certificate that a listener names directly would be read once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import Json, discovery_response, typed
from everyhop.dataplane.transport import TLS, downstream, exactly, named, upstream

if TYPE_CHECKING:
    from collections.abc import Sequence


def svid_secret(certificates: str) -> Json:
    """Return the file of the secret that is the service's own certificate and key."""
    return _secret(
        names.SDS_SVID,
        tls_certificate={
            "certificate_chain": {"filename": f"{certificates}/svid.pem"},
            "private_key": {"filename": f"{certificates}/key.pem"},
            "watched_directory": {"path": certificates},
        },
    )


def bundle_secret(certificates: str) -> Json:
    """Return the file of the secret that is the trust domain's authorities."""
    return _secret(
        names.SDS_BUNDLE,
        validation_context={
            "trusted_ca": {"filename": f"{certificates}/bundle.pem"},
            "watched_directory": {"path": certificates},
        },
    )


def server_tls(directory: str, alpn: Sequence[str], callers: Sequence[Json]) -> Json:
    """Return the transport socket of the listener; ``callers`` are matchers of which the caller's URI meets one.

    Envoy reads an empty list as everybody, so it is refused (ValueError).  A resumed session would skip the check of a
    certificate that has expired since, so there are none.
    """
    return downstream(alpn, asks=True, **_secrets(directory, callers))


def client_tls(directory: str, alpn: Sequence[str], spiffe_id: str) -> Json:
    """Return the transport socket towards one service: nobody but exactly ``spiffe_id`` is talked to."""
    return upstream(alpn, **_secrets(directory, [exactly(spiffe_id)]))


def within(trust_domain: str) -> Json:
    """Return what matches every SPIFFE ID of a trust domain; the slash keeps a longer name out."""
    return {"san_type": "URI", "matcher": {"prefix": f"spiffe://{trust_domain}/"}}


def _secrets(directory: str, peers: Sequence[Json]) -> dict[str, Json | list[Json]]:
    return {
        "tls_certificate_sds_secret_configs": [_from_file(directory, names.SDS_SVID)],
        "combined_validation_context": named(peers, _from_file(directory, names.SDS_BUNDLE)),
    }


def _from_file(directory: str, name: str) -> Json:
    """Return a reference to a secret's file; nothing listens before it has been read."""
    source = {"path": f"{directory}/{name}.json", "watched_directory": {"path": directory}}
    config = {
        "path_config_source": source,
        "resource_api_version": "V3",
        "initial_fetch_timeout": "0s",
    }
    return {"name": name, "sds_config": config}


def _secret(name: str, **content: Json) -> Json:
    secret = typed(TLS + "Secret", name=name, **content)
    return discovery_response("1", [secret])
