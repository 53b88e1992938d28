# SPDX-License-Identifier: Apache-2.0
"""One behaviour for every key store."""

from itertools import count

import pytest

from everyhop.core.errors import InputError, TrustError
from everyhop.core.secret import Secret
from everyhop.providers.keystores import FileKeyStore, MemoryKeyStore
from everyhop.x509 import decode_private_key

SECRET = Secret(b"a private key")


@pytest.fixture(params=["file", "memory"])
def make(request, tmp_path):
    """Make a store with a KEK of its own on each call."""
    numbers = count()
    if request.param == "memory":
        return MemoryKeyStore
    return lambda: FileKeyStore(tmp_path / f"kek{next(numbers)}")


@pytest.fixture
def store(make):
    return make()


def test_another_kek_is_named_as_the_reason(make):
    blob = make().wrap("k", "authority/x509", SECRET)
    with pytest.raises(TrustError, match="another key-encryption key") as caught:
        make().unwrap("k", "authority/x509", blob)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("key_id", "purpose"),
    [("other", "p"), ("k", "q"), ("p", "k"), ("kp", ""), ("", "kp"), ("k", ""), ("", "p"), ("k\0", "p")],
)
def test_a_blob_of_another_row_or_purpose_is_refused(store, key_id, purpose):
    blob = store.wrap("k", "p", SECRET)
    with pytest.raises(TrustError):
        store.unwrap(key_id, purpose, blob)


def test_every_flipped_bit_is_refused(store):
    blob = store.wrap("k", "p", SECRET)
    for bit in range(8 * len(blob)):
        changed = bytearray(blob)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((TrustError, InputError)):
            store.unwrap("k", "p", bytes(changed))


def test_every_cut_and_every_addition_is_refused(store):
    blob = store.wrap("k", "p", SECRET)
    for size in range(len(blob)):
        with pytest.raises((TrustError, InputError)):
            store.unwrap("k", "p", blob[:size])
    for longer in (blob + b"\0", blob * 2, blob + bytes(20_000)):
        with pytest.raises((TrustError, InputError)):
            store.unwrap("k", "p", longer)


def test_what_is_too_large_is_refused(store):
    with pytest.raises(InputError):
        store.wrap("k", "p", Secret(bytes(8193)))


def test_what_went_in_comes_out(store):
    for value in (b"", b"\0", b"x" * 8192):
        assert store.unwrap("k", "p", store.wrap("k", "p", Secret(value))).reveal() == value


def test_two_blobs_of_one_secret_differ_and_hide_it(store):
    first, second = (store.wrap("k", "p", SECRET) for _ in range(2))
    assert first != second
    assert SECRET.reveal() not in first


def test_generated_keys_are_p256_and_new(store):
    first, second = store.generate(), store.generate()
    assert decode_private_key(first).curve.name == "secp256r1"
    assert first.reveal() != second.reveal()
