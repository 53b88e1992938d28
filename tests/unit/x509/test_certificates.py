# SPDX-License-Identifier: Apache-2.0
"""Certificates as bytes: joined, split, cut off, in PEM."""

import hashlib

import pytest
from tests.support.identity import TestCa

from everyhop.core.errors import InputError
from everyhop.x509 import (
    certificates_from_pem,
    certificates_to_pem,
    decode_certificate,
    sha256_fingerprint,
    split_certificates,
    x5t_s256,
)

CA = TestCa()
LEAF = CA.leaf()


def test_joined_certificates_are_split():
    assert split_certificates(LEAF + CA.der + LEAF) == (LEAF, CA.der, LEAF)
    assert split_certificates(b"") == ()
    assert split_certificates(b"\x30\x01\x05") == (b"\x30\x01\x05",)


@pytest.mark.parametrize(
    "data",
    [
        b"\x30",
        b"\x31\x00",
        b"\x30\x80\x00\x00",
        b"\x30\x84\x00\x00\x00\x01x",
        b"\x30\x82\x01",
        b"\x30\x05abc",
        LEAF[:-1],
        LEAF + b"\0",
        b"\x30\x00" * 65,
    ],
)
def test_what_does_not_add_up_is_refused(data):
    with pytest.raises(InputError):
        split_certificates(data)


def test_what_is_no_certificate_is_refused():
    for data in (b"", LEAF + b"\0", LEAF[:-1], LEAF[4:], b"0" * 20_000, certificates_to_pem([LEAF])):
        with pytest.raises(InputError):
            decode_certificate(data)


def test_a_malformed_extension_is_refused_at_the_door():
    # The subject alternative name's outer tag becomes an integer: the certificate parses, its names do not.
    place = LEAF.index(b"\x55\x1d\x11\x01\x01\xff\x04") + 8
    broken = LEAF[:place] + b"\x02" + LEAF[place + 1 :]
    with pytest.raises(InputError):
        decode_certificate(broken)


@pytest.mark.filterwarnings("default")
def test_a_negative_serial_number_is_refused_without_a_warning_as_error():
    place = LEAF.index(b"\xa0\x03\x02\x01\x02\x02") + 7
    with pytest.raises(InputError), pytest.warns(Warning, match="serial number"):
        decode_certificate(LEAF[:place] + b"\x80" + LEAF[place + 1 :])


def test_pem_round_trip():
    pem = certificates_to_pem([LEAF, CA.der])
    assert pem.count(b"BEGIN CERTIFICATE") == 2
    assert certificates_from_pem(pem) == (LEAF, CA.der)


def test_what_is_no_pem_is_refused():
    for data in (
        b"",
        b"hello",
        b"-----BEGIN CERTIFICATE-----\n",
        b"x" * 3_000_000,
        certificates_to_pem([LEAF]) * 65,
    ):
        with pytest.raises(InputError):
            certificates_from_pem(data)


def test_fingerprints():
    assert sha256_fingerprint(LEAF) == hashlib.sha256(LEAF).hexdigest()
    assert len(x5t_s256(LEAF)) == 43
    assert x5t_s256(b"abc") == "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0"
