# SPDX-License-Identifier: Apache-2.0
"""Paths from a leaf to a trusted root (RFC 5280 section 6).

The path is built and its signatures, names, times, path lengths and critical extensions are checked by the
verifier of ``cryptography``.  Measured gaps of that verifier with an open extension policy are closed here: a
CA whose key usage lacks keyCertSign, a leaf that is itself among the roots, and the fraction of a second
after notAfter.  Name constraints on URIs are refused by it: narrower than the standard, never wider.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import verification

from everyhop.core.errors import ChainError

MAX_INTERMEDIATES: Final = 4
MAX_ROOTS: Final = 64


def _demand_cert_sign(
    _policy: verification.Policy, _certificate: x509.Certificate, usage: x509.KeyUsage
) -> None:
    if not usage.key_cert_sign:
        raise ValueError("a CA needs keyCertSign")


_CA_POLICY: Final = (
    verification.ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)
    .require_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, _demand_cert_sign)
)
_LEAF_POLICY: Final = verification.ExtensionPolicy.permit_all().require_present(
    x509.SubjectAlternativeName, verification.Criticality.AGNOSTIC, None
)


def verify_chain(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    now: datetime,
) -> tuple[x509.Certificate, ...]:
    """Return the path, leaf first and root last.

    ``now`` is aware.  At most 4 intermediates and 64 roots; roots that are no CA are passed over.  What
    the leaf may be used for is left to the caller.  Raises ChainError when there is no path that holds now.
    """
    if len(intermediates) > MAX_INTERMEDIATES:
        raise ChainError(f"a chain has at most {MAX_INTERMEDIATES} intermediate certificates")
    anchors = [root for root in roots[:MAX_ROOTS] if is_ca(root)]
    if not anchors:
        raise ChainError("there is no trusted authority to check against")
    builder = (
        verification.PolicyBuilder()
        .store(verification.Store(anchors))
        .time(now)
        .max_chain_depth(MAX_INTERMEDIATES)
        .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
    )
    try:
        path = builder.build_client_verifier().verify(leaf, list(intermediates)).chain
    except (verification.VerificationError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ChainError(f"no valid path to a trusted authority: {error}") from error
    if len(path) < 2:  # noqa: PLR2004  # a leaf and a root
        raise ChainError("a root does not vouch for itself as a leaf")
    for certificate in path:
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise ChainError("a certificate of the chain is not valid now")
    return tuple(path)


def is_ca(certificate: x509.Certificate) -> bool:
    """Tell whether a certificate claims to be a CA (RFC 5280 section 4.2.1.9)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False
