# SPDX-License-Identifier: Apache-2.0
"""SPIFFE: trust domains, SPIFFE IDs, SVIDs and bundles, exactly to the standards.  No IO.

The modules below are imported by name (``everyhop.spiffe.x509_svid``), so that a room which needs only ids, such
as ``policy``, does not load the cryptography behind the others.
"""

from everyhop.spiffe.ids import SpiffeId, TrustDomain

__all__ = ["SpiffeId", "TrustDomain"]
