# SPDX-License-Identifier: Apache-2.0
"""What everyhop signs, field by field, and what openssl says to it."""

import shutil
import subprocess
from datetime import timedelta

import pytest
from cryptography import x509
from tests.support.identity import DOMAIN_ID, HOUR, NOW, WORKLOAD_ID, TestEntropy

from everyhop.core.errors import InputError
from everyhop.x509 import (
    CaProfile,
    Issuer,
    LeafProfile,
    certificates_to_pem,
    decode_certificate,
    generate_private_key,
    key_identifier,
    new_serial,
    sign_ca,
)

KEY = generate_private_key()
CA = sign_ca(CaProfile(uri=DOMAIN_ID, serial=7, not_before=NOW, not_after=NOW + 24 * HOUR), KEY)
HOLDER = generate_private_key()


def leaf(not_before=NOW, not_after=NOW + HOUR):
    profile = LeafProfile(
        uri=WORKLOAD_ID,
        public_key=HOLDER.public_key(),
        serial=new_serial(TestEntropy()),
        not_before=not_before,
        not_after=not_after,
    )
    return Issuer(CA, KEY).sign_leaf(profile)


def test_a_key_that_is_not_the_ca_s_is_refused():
    with pytest.raises(InputError):
        Issuer(CA, HOLDER)


def test_a_leaf_without_any_time_left_is_refused():
    for start, end in (
        (NOW, NOW),
        (NOW + HOUR, NOW),
        (NOW + 24 * HOUR, NOW + 25 * HOUR),
        (NOW - 2 * HOUR, NOW),
    ):
        with pytest.raises(InputError):
            leaf(start, end)


def test_the_time_of_a_leaf_is_cut_to_the_ca_s():
    made = decode_certificate(leaf(NOW - HOUR, NOW + 100 * HOUR))
    assert (made.not_valid_before_utc, made.not_valid_after_utc) == (NOW, NOW + 24 * HOUR)


def test_fractions_of_a_second_are_cut_not_rounded():
    made = decode_certificate(leaf(NOW, NOW + HOUR + timedelta(microseconds=999_999)))
    assert made.not_valid_after_utc == NOW + HOUR


def test_a_leaf_names_nothing_but_its_uri():
    made = decode_certificate(leaf())
    assert not made.subject.rdns
    san = made.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert san.critical
    assert list(san.value) == [x509.UniformResourceIdentifier(WORKLOAD_ID)]
    assert made.public_key() == HOLDER.public_key()


def test_authorities_of_one_domain_have_names_of_their_own():
    other = generate_private_key()
    second = decode_certificate(
        sign_ca(CaProfile(uri=DOMAIN_ID, serial=8, not_before=NOW, not_after=NOW + HOUR), other)
    )
    first = decode_certificate(CA)
    assert first.subject != second.subject
    assert first.subject == first.issuer
    identifier = first.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert identifier == key_identifier(KEY.public_key())


@pytest.mark.parametrize("raw", [b"\xff" * 20, b"\0" * 20, b"\x80" + b"\0" * 19])
def test_serial_numbers_are_positive_and_short(raw):
    class Chosen:
        def token_bytes(self, count):
            assert count == 20
            return raw

        def fraction(self):
            return 0.0

    serial = new_serial(Chosen())
    assert 0 < serial < 2**159


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_verifies_what_we_sign(tmp_path):
    (tmp_path / "ca.pem").write_bytes(certificates_to_pem([CA]))
    (tmp_path / "leaf.pem").write_bytes(certificates_to_pem([leaf()]))
    at = str(int(NOW.timestamp()) + 1)
    base = ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-CAfile", "ca.pem"]

    def verify(*more, when=at):
        command = [*base, "-attime", when, *more, "leaf.pem"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    for purpose in ("sslserver", "sslclient"):
        done = verify("-purpose", purpose)
        assert (done.returncode, done.stdout.strip()) == (0, "leaf.pem: OK"), done.stderr
    assert verify(when=str(int(NOW.timestamp()) + 3601)).returncode != 0


def test_a_server_has_host_names_beside_its_one_uri():
    profile = LeafProfile(
        uri=WORKLOAD_ID,
        public_key=HOLDER.public_key(),
        serial=9,
        not_before=NOW,
        not_after=NOW + HOUR,
        hosts=("localhost", "127.0.0.1", "::1", "auth.shop.example"),
    )
    made = decode_certificate(Issuer(CA, KEY).sign_leaf(profile))
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [WORKLOAD_ID]
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost", "auth.shop.example"]
    assert [str(a) for a in names.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
