# SPDX-License-Identifier: Apache-2.0
"""Addresses of outside clients, as they are counted and named."""

from __future__ import annotations

import ipaddress


def canonical_address(text: str) -> str | None:
    """Return an address as it is counted: IPv4, or the /64 of IPv6; a port is dropped.  None for anything else."""
    bare = text[1:].partition("]")[0] if text.startswith("[") else text
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    bare = bare.removesuffix("/64")
    try:
        address = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)
