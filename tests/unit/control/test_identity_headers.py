# SPDX-License-Identifier: Apache-2.0
"""Forged identity headers go, in every spelling (field notes on authorization, numbers 18 to 22)."""

import pytest

from everyhop.control.identity_headers import FAMILY, REROUTING, removed_headers


@pytest.mark.parametrize(
    "name",
    [
        b"x-everyhop-user",
        b"X-Everyhop-User",
        b"x_everyhop_user",
        b"x_everyhop-user",
        b"x-everyhop_user",
        b"x-everyhop-anything-new",
        b"X_EVERYHOP_ROLES",
        b"txn_token",
        b"x_http_method-override",
        b"x-original-url",
    ],
)
def test_a_forged_header_is_removed_as_it_was_spelled(name):
    assert name.decode().lower() in removed_headers([(name, b"root")], also=(), kept=())


def test_the_family_is_removed_even_when_the_proxy_hides_what_was_sent():
    removed = removed_headers([], also=("txn-token",), kept=())
    for name in (*FAMILY, *REROUTING, "txn-token"):
        assert name in removed
    assert "x_everyhop_user_roles" in removed


def test_many_forgeries_do_not_displace_one():
    sent = [(b"x-everyhop-%d" % n, b"") for n in range(500)]
    removed = removed_headers([*sent, (b"x_everyhop-caller", b"")], also=(), kept=())
    assert "x_everyhop-caller" in removed
    assert "x-everyhop-499" in removed


def test_what_we_set_is_not_removed_and_what_is_nobodys_stays():
    removed = removed_headers(
        [(b"x-everyhop-caller", b"root"), (b"accept", b"*/*"), (b"x-everyone", b"")],
        also=(),
        kept={"x-everyhop-caller"},
    )
    assert "x-everyhop-caller" not in removed
    assert "x_everyhop_caller" in removed
    assert not {"accept", "x-everyone"} & set(removed)
