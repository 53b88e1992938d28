# SPDX-License-Identifier: Apache-2.0
"""Blocks of addresses, with holes."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

Block = ipaddress.IPv4Network | ipaddress.IPv6Network
_CIDR: Final = re.compile(r"[0-9a-fA-F.:]+/[0-9]{1,3}")


Span = tuple[int, int, int]
"""The version of a block's addresses, the first and the last: comparing numbers is what a prover's questions have time for."""


@dataclass(frozen=True, slots=True)
class Network:
    """A block without its exceptions."""

    block: Block
    excepted: tuple[Block, ...] = ()
    _span: Span = field(init=False, repr=False, compare=False)
    _holes: tuple[Span, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_span", _span(self.block))
        object.__setattr__(self, "_holes", tuple(map(_span, self.excepted)))

    def __contains__(self, address: str) -> bool:
        """Tell whether an address is in the block and in no exception; raises InputError for what is no address."""
        version, number = _address(address)
        own, low, high = self._span
        if own != version or not low <= number <= high:
            return False
        return not any(low <= number <= high for _, low, high in self._holes)


def _span(block: Block) -> Span:
    return block.version, int(block.network_address), int(block.broadcast_address)


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


@lru_cache(maxsize=65536)
def _address(text: str) -> tuple[int, int]:
    try:
        found = ipaddress.ip_address(text)
    except ValueError as error:
        raise InputError(f"{text[:60]!r} is no address") from error
    return found.version, int(found)
