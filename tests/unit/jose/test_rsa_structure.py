# SPDX-License-Identifier: Apache-2.0
"""ROCA's mark, and small factors."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from everyhop.core.errors import InputError
from everyhop.jose import Jwk, encode_base64url
from everyhop.jose.rsa_structure import has_weak_structure

PRIMES = [p for p in range(2, 702) if all(p % q for q in range(2, p))]


def roca_like(bits=2048):
    """A number of the broken form: a power of 65537 modulo the product of the first 126 primes, plus a multiple."""
    product = 1
    for prime in PRIMES[:126]:
        product *= prime
    number = pow(65537, 123456789, product)
    return number + ((1 << (bits - 1)) // product + 2) * product


def test_the_mark_is_seen():
    assert has_weak_structure(roca_like())


@pytest.mark.parametrize("factor", [2, 3, 5, 163, 167])
def test_small_factors_are_seen(factor):
    assert has_weak_structure(factor * ((1 << 2048) - 159))


def test_sound_moduli_pass():
    for _ in range(5):
        number = (
            rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key().public_numbers().n
        )
        assert not has_weak_structure(number)


def test_such_a_key_is_no_key():
    number = roca_like()
    with pytest.raises(InputError):
        Jwk.from_members({"kty": "RSA", "e": "AQAB", "n": encode_base64url(number.to_bytes(256, "big"))})


@pytest.mark.parametrize(
    "key_ops", [[], ["sign"], ["verify", "sign"], ["verify", "verify"], "verify", None, [1]]
)
def test_key_ops_for_something_else(key_ops):
    members = {"kty": "EC", "key_ops": key_ops}
    with pytest.raises(InputError, match="verifying"):
        Jwk.from_members(members)
