# SPDX-License-Identifier: Apache-2.0
"""Blocks of addresses, with holes."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

Block = ipaddress.IPv4Network | ipaddress.IPv6Network
_CIDR: Final = re.compile(r"[0-9a-fA-F.:]+/[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class Network:
    """A block without its exceptions."""

    block: Block
    excepted: tuple[Block, ...] = ()

    def __contains__(self, address: str) -> bool:
        """Tell whether an address is in the block and in no exception; raises InputError for what is no address."""
        found = _address(address)
        return _holds(self.block, found) and not any(_holds(one, found) for one in self.excepted)


def read_block(text: str, where: str) -> Block:
    """Read ``ADDRESS/LENGTH``; host bits may be set, as every reader of the systems here allows.

    Raises InputError for anything else, an address without a length and a dotted mask among it.
    """
    if not _CIDR.fullmatch(text):
        raise InputError(f"{where}: {text[:60]!r} is no CIDR")
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise InputError(f"{where}: {text[:60]!r} is no CIDR") from error


def read_network(cidr: str, excepted: Iterable[str], where: str) -> Network:
    """Read a block and its exceptions; raises InputError for an exception that does not lie within the block.

    An exception that is the whole block is refused too: every system here rejects it, as it would leave nothing.
    """
    block = read_block(cidr, where)
    holes = tuple(read_block(one, where) for one in excepted)
    for hole in holes:
        if hole.version != block.version or hole == block or not _within(hole, block):
            raise InputError(f"{where}: the exception {hole} is no part of {block}")
    return Network(block, holes)


def read_networks(cidrs: Iterable[str], where: str) -> tuple[Network, ...]:
    """Read blocks without exceptions."""
    return tuple(Network(read_block(one, where)) for one in cidrs)


def _within(inner: Block, outer: Block) -> bool:
    return inner.prefixlen >= outer.prefixlen and inner.network_address in outer


@lru_cache(maxsize=4096)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise InputError(f"{text[:60]!r} is no address") from error


@lru_cache(maxsize=65536)
def _holds(block: Block, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.version == block.version and address in block
