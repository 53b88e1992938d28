# SPDX-License-Identifier: Apache-2.0
"""SPIFFE IDs: each clause of SPIFFE-ID.md section 2, refused first."""

import pytest

from everyhop.core.errors import InputError
from everyhop.spiffe import SpiffeId, TrustDomain


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe:",
        "spiffe:/",
        "spiffe://",
        "spiffe:///path",
        "http://a.b/c",
        "a.b/c",
        " spiffe://a.b/c",
        "spiffe://a.b/c ",
        "spiffe://a.b/c\n",
        "spiffe://a.b:80/c",
        "spiffe://u@a.b/c",
        "spiffe://a.b/c?q",
        "spiffe://a.b/c#f",
        "spiffe://a%2eb/c",
        "spiffe://a.b/%41",
        "spiffe://a.b/",
        "spiffe://a.b/c/",
        "spiffe://a.b//c",
        "spiffe://a.b/./c",
        "spiffe://a.b/c/..",
        "spiffe://a.b/c:d",
        "spiffe://a.b/ü",
        "spiffe://ü.b/c",
        "spiffe://[::1]/c",
        "spiffe://a!b/c",
        "spiffe://" + "a" * 256 + "/c",
        "spiffe://a.b/" + "c" * 2048,
        "spiffe://\u212a/c",
    ],
)
def test_no_spiffe_id(text):
    with pytest.raises(InputError):
        SpiffeId.parse(text)


@pytest.mark.parametrize("text", ["", "a b", "a/b", "ü", "a:1", "a" * 256, "\u0130"])
def test_no_trust_domain(text):
    with pytest.raises(InputError):
        TrustDomain.parse(text)


def test_what_is_folded_and_what_is_not():
    assert SpiffeId.parse("SPIFFE://Shop.Example/Service/A") == SpiffeId.parse(
        "spiffe://shop.example/Service/A"
    )
    assert SpiffeId.parse("spiffe://a/b") != SpiffeId.parse("spiffe://a/B")
    assert str(SpiffeId.parse("Spiffe://A/B")) == "spiffe://a/B"


def test_names_that_look_like_something_else_are_names():
    for text in ("1.2.3.4", "localhost", "_x", "a..b", "-", "a" * 255):
        assert str(TrustDomain.parse(text)) == text
    assert SpiffeId.parse("spiffe://1.2.3.4/.../-").path == "/.../-"


def test_2048_bytes_are_supported():
    text = "spiffe://a/" + "b" * 2037
    assert len(text) == 2048
    assert str(SpiffeId.parse(text)) == text


def test_values_are_values():
    domain = TrustDomain.parse("a")
    spiffe_id = SpiffeId.parse("spiffe://a/b")
    assert not domain.id.has_path
    assert spiffe_id.has_path
    assert spiffe_id.trust_domain == domain
    assert len({domain, TrustDomain.parse("A"), spiffe_id, SpiffeId.parse("spiffe://A/b")}) == 2
    assert repr(spiffe_id) == "SpiffeId('spiffe://a/b')"
    assert repr(domain) == "TrustDomain('a')"
    for value, field in ((domain, "name"), (spiffe_id, "path")):
        with pytest.raises(AttributeError):
            setattr(value, field, "x")
        with pytest.raises(TypeError):
            type(value)()
