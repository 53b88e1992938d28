# SPDX-License-Identifier: Apache-2.0
"""Paths: every way in which one may fail to hold, then the ways in which it holds."""

from datetime import timedelta

import pytest
from cryptography import x509
from tests.support.identity import (
    HOUR,
    NOW,
    TestCa,
    ca_extensions,
    certificate,
    key_usage,
    leaf_extensions,
    name,
    new_key,
)

from everyhop.core.errors import ChainError
from everyhop.x509 import decode_certificate, verify_chain

ROOT = TestCa()
MIDDLE = TestCa(common="middle", parent=ROOT, extensions=ca_extensions(path_length=0))
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")


def check(leaf, intermediates=(), roots=(ROOT.der,), now=NOW):
    return verify_chain(
        decode_certificate(leaf),
        [decode_certificate(der) for der in intermediates],
        [decode_certificate(der) for der in roots],
        now,
    )


def middle(**changed):
    return TestCa(common="middle", parent=ROOT, extensions={**ca_extensions(), **changed})


def refused(leaf, intermediates=(), roots=(ROOT.der,), now=NOW):
    with pytest.raises(ChainError):
        check(leaf, intermediates, roots, now)


def test_no_root():
    refused(ROOT.leaf(), roots=())


def test_another_root_with_the_same_name():
    refused(TestCa().leaf())


def test_a_root_that_is_no_ca():
    leaf = ROOT.leaf()
    refused(leaf, roots=(leaf,))


def test_a_root_without_constraints():
    refused(ROOT.leaf(), roots=(TestCa(extensions={"usage": None}).der,))


def test_a_leaf_that_is_a_root_itself():
    refused(ROOT.der)


@pytest.mark.parametrize(
    "now",
    [
        NOW - HOUR - timedelta(microseconds=1),
        NOW - HOUR - timedelta(seconds=1),
        NOW + HOUR + timedelta(microseconds=1),
        NOW + HOUR + timedelta(seconds=1),
    ],
)
def test_outside_the_leaf_s_time(now):
    refused(ROOT.leaf(), now=now)


@pytest.mark.parametrize("now", [NOW - HOUR, NOW + HOUR])
def test_the_ends_of_the_leaf_s_time_belong_to_it(now):
    assert len(check(ROOT.leaf(), now=now)) == 2


def test_an_expired_root():
    old = TestCa(not_before=NOW - 9 * HOUR, not_after=NOW - HOUR)
    refused(old.leaf(), roots=(old.der,))


def test_an_expired_intermediate():
    old = TestCa(
        common="middle", parent=ROOT, not_before=NOW - 9 * HOUR, not_after=NOW - timedelta(seconds=1)
    )
    refused(old.leaf(), [old.der])


def test_a_missing_intermediate():
    refused(MIDDLE.leaf())


def test_a_leaf_that_signs():
    key = new_key()
    parent = certificate(
        subject=name("workload"),
        issuer=name(ROOT.common),
        public_key=key.public_key(),
        signer=ROOT.key,
        extensions=leaf_extensions(),
    )
    child = certificate(
        subject=name("victim"),
        issuer=name("workload"),
        public_key=new_key().public_key(),
        signer=key,
        extensions=leaf_extensions(),
    )
    refused(child, [parent])


@pytest.mark.parametrize(
    "changed",
    [
        {"constraints": None},
        {"constraints": (x509.BasicConstraints(ca=False, path_length=None), True)},
        {"usage": None},
        {"usage": (key_usage("digital_signature"), True)},
        {"usage": (key_usage("crl_sign"), True)},
        {"unknown": (UNKNOWN, True)},
        {
            "limits": (
                x509.NameConstraints([x509.UniformResourceIdentifier("elsewhere.example")], None),
                True,
            )
        },
    ],
    ids=["no constraints", "no ca", "no usage", "signature only", "crl only", "unknown critical", "names"],
)
def test_an_intermediate_that_may_not_sign(changed):
    bad = middle(**changed)
    refused(bad.leaf(), [bad.der])


def test_a_path_longer_than_its_root_allows():
    short = TestCa(common="short", extensions=ca_extensions(path_length=0))
    below = TestCa(common="below", parent=short)
    refused(below.leaf(), [below.der], roots=(short.der,))


def test_more_intermediates_than_we_look_at():
    refused(ROOT.leaf(), [MIDDLE.der] * 5)


def test_a_chain_deeper_than_we_follow():
    chain = [ROOT]
    for depth in range(6):
        chain.append(TestCa(common=f"depth {depth}", parent=chain[-1]))
    refused(chain[-1].leaf(), [ca.der for ca in chain[3:]])


def test_an_unknown_critical_extension_in_the_leaf():
    refused(ROOT.leaf(unknown=(UNKNOWN, True)))


def test_a_leaf_without_names():
    refused(ROOT.leaf(names=None, subject=name("orders")))


def test_every_flipped_byte_of_the_signature():
    leaf = ROOT.leaf()
    for place in range(len(leaf) - 60, len(leaf)):
        changed = leaf[:place] + bytes([leaf[place] ^ 1]) + leaf[place + 1 :]
        refused(changed)


def test_paths_that_hold():
    assert len(check(ROOT.leaf())) == 2
    assert len(check(MIDDLE.leaf(), [MIDDLE.der])) == 3
    other = TestCa(common="unrelated")
    assert len(check(MIDDLE.leaf(), [other.der, MIDDLE.der], (other.der, ROOT.der))) == 3
    assert len(check(ROOT.leaf(unknown=(UNKNOWN, False)))) == 2
