# SPDX-License-Identifier: Apache-2.0
"""Envoy's secret discovery protocol: our messages with Envoy's field numbers, under Envoy's names on the wire."""

from __future__ import annotations

from typing import Final

from everyhop.wire.envoy_sds_pb2 import (
    CertificateValidationContext,
    DataSource,
    DiscoveryRequest,
    DiscoveryResponse,
    GenericSecret,
    Node,
    Secret,
    SPIFFECertValidatorConfig,
    Status,
    StringMatcher,
    SubjectAltNameMatcher,
    TlsCertificate,
    TypedExtensionConfig,
)

__all__ = [
    "SECRET_TYPE_URL",
    "SPIFFE_VALIDATOR_NAME",
    "SPIFFE_VALIDATOR_TYPE_URL",
    "STREAM_SECRETS",
    "CertificateValidationContext",
    "DataSource",
    "DiscoveryRequest",
    "DiscoveryResponse",
    "GenericSecret",
    "Node",
    "SPIFFECertValidatorConfig",
    "Secret",
    "Status",
    "StringMatcher",
    "SubjectAltNameMatcher",
    "TlsCertificate",
    "TypedExtensionConfig",
]

STREAM_SECRETS: Final = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
"""Path of the method."""

SECRET_TYPE_URL: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105  # a type
"""Type of every resource in a discovery response for secrets."""

SPIFFE_VALIDATOR_NAME: Final = "envoy.tls.cert_validator.spiffe"
"""Name for :class:`TypedExtensionConfig` of the SPIFFE certificate validator."""

SPIFFE_VALIDATOR_TYPE_URL: Final = (
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
)
"""Type of its configuration."""
