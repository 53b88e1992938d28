# SPDX-License-Identifier: Apache-2.0
"""RSA moduli that tell on their generator (ROCA, CVE-2017-15361; RFC 8725 section 3.5).

The broken generator made primes of the form ``k * M + 65537**a mod M``, so a modulus is a power of 65537 in the
ring of every small prime.  A sound modulus passes as one about once in a hundred million.
"""

from __future__ import annotations

from typing import Final

_GENERATOR: Final = 65537
_HIGHEST: Final = 167


def _odd_primes(highest: int) -> list[int]:
    found: list[int] = []
    for number in range(3, highest + 1, 2):
        if all(number % prime for prime in found):
            found.append(number)
    return found


def _powers(prime: int) -> frozenset[int]:
    found, power = set(), 1
    while power not in found:
        found.add(power)
        power = power * _GENERATOR % prime
    return frozenset(found)


_SUBGROUPS: Final = tuple((prime, _powers(prime)) for prime in _odd_primes(_HIGHEST))


def has_weak_structure(modulus: int) -> bool:
    """Tell whether the modulus is even, has a small factor, or is of the broken form."""
    if modulus % 2 == 0 or any(modulus % prime == 0 for prime, _ in _SUBGROUPS):
        return True
    return all(modulus % prime in powers for prime, powers in _SUBGROUPS)
