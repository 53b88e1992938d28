# SPDX-License-Identifier: Apache-2.0
"""The functions that everyhop adds to CEL: what they do, their types, and what their literals must be.

An error inside one is raised as ValueError with a text that names no request data; CEL turns it into an error of the
evaluation, which ``&&`` and ``||`` treat like any other.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from everyhop.conditions import ast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_NETWORK: Final = re.compile(r"[0-9a-fA-F.:]+(?:/[0-9]{1,3})?", re.ASCII)
_MAX_ADDRESS: Final = 45

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@lru_cache(maxsize=1024)
def parse_network(text: str) -> Network:
    """Return the network of ``10.0.0.0/8``; raises ValueError with a text for people.

    Host bits must be zero, masks are prefix lengths, and a network of IPv4-mapped addresses is refused: an address of
    that form is read as IPv4, so it could never lie within.
    """
    try:
        network = ipaddress.ip_network(text if _NETWORK.fullmatch(text) else "", strict=False)
    except ValueError:
        raise ValueError("the network cannot be read; write it as 10.0.0.0/8 or 2001:db8::/32") from None
    if network.network_address != ipaddress.ip_address(text.partition("/")[0]):
        raise ValueError(f"the network has host bits set; it would be {network}")
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError("write the network of IPv4-mapped addresses as an IPv4 network")
    return network


def parse_address(text: str) -> Address:
    """Return the address, an IPv4-mapped one as IPv4; raises ValueError, also for one with a zone or a port."""
    if len(text) > _MAX_ADDRESS or "%" in text:
        raise ValueError("the address cannot be read")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("the address cannot be read") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def in_cidr(address: str, network: str) -> bool:
    """Tell whether the address lies in the network; one of the other family never does."""
    return parse_address(address) in parse_network(network)


def has_role(roles: Sequence[str], role: str) -> bool:
    """Tell whether the list holds the string."""
    return role in roles


def has_any(held: Sequence[str], wanted: Sequence[str]) -> bool:
    """Tell whether the lists share a string."""
    return not set(wanted).isdisjoint(held)


def has_all(held: Sequence[str], wanted: Sequence[str]) -> bool:
    """Tell whether the first list holds every string of the second; nothing to hold is an error, not true."""
    if not wanted:
        raise ValueError("has_all() was asked for nothing")
    return set(wanted).issubset(held)


def starts_with_any(text: str, prefixes: Sequence[str]) -> bool:
    """Tell whether the text begins with one of the prefixes; an empty prefix is an error, not true."""
    if not all(prefixes):
        raise ValueError("starts_with_any() was given an empty prefix")
    return text.startswith(tuple(prefixes))


@dataclass(frozen=True, slots=True)
class Helper:
    """One function: the types of its parameters in the words of ``ast``, what it does, what checks its literals.

    ``check`` gets the nodes of a call and yields the offset and text of each mistake.
    """

    name: str
    parameters: tuple[str, ...]
    function: Callable[..., bool]
    check: Callable[[ast.Call], Iterator[tuple[int, str]]]


def _check_network(call: ast.Call) -> Iterator[tuple[int, str]]:
    network = call.args[1]
    if not isinstance(network, ast.Literal):
        yield call.offset, "in_cidr() needs its network written out"
        return
    try:
        parse_network(str(network.value))
    except ValueError as error:
        yield network.offset, str(error)
    address = call.args[0]
    if isinstance(address, ast.Literal):
        yield address.offset, "in_cidr() needs an address of the request, not one written out"


def _check_strings(call: ast.Call) -> Iterator[tuple[int, str]]:
    """Refuse empty literals: a role or prefix of no characters, a list of no members."""
    for argument in call.args[1:]:
        if isinstance(argument, ast.ListOf) and not argument.items:
            yield argument.offset, f"{call.function}() needs at least one string"
        for literal in argument.items if isinstance(argument, ast.ListOf) else (argument,):
            if isinstance(literal, ast.Literal) and not literal.value:
                yield literal.offset, f"{call.function}() needs a string that is not empty"


_STRINGS: Final = "list(string)"

HELPERS: Final = {
    helper.name: helper
    for helper in (
        Helper("has_all", (_STRINGS, _STRINGS), has_all, _check_strings),
        Helper("has_any", (_STRINGS, _STRINGS), has_any, _check_strings),
        Helper("has_role", (_STRINGS, "string"), has_role, _check_strings),
        Helper("in_cidr", ("string", "string"), in_cidr, _check_network),
        Helper("starts_with_any", ("string", _STRINGS), starts_with_any, _check_strings),
    )
}
"""The helpers by name."""
