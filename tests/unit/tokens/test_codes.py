# SPDX-License-Identifier: Apache-2.0
"""Codes, their status, and what `WWW-Authenticate` says (RFC 6750 section 3)."""

import pytest

from everyhop.core.errors import TokenError, TrustError
from everyhop.tokens import TokenCode, challenge, status_of
from everyhop.tokens.codes import meaning_of

CONTRACT = {
    "MISSING_TOKEN",
    "TOKEN_MALFORMED",
    "TOKEN_INVALID",
    "TOKEN_EXPIRED",
    "UNKNOWN_KEY_ID",
    "UNAUTHORIZED_ISSUER",
    "AUDIENCE_MISMATCH",
    "INSUFFICIENT_SCOPE",
    "BINDING_MISMATCH",
    "TOKEN_REPLAYED",
    "TOKEN_REVOKED",
    "USER_REQUIRED",
}


def test_the_names_are_the_contract():
    assert {code.value for code in TokenCode} == CONTRACT


@pytest.mark.parametrize("code", TokenCode)
def test_only_a_narrow_scope_is_forbidden(code):
    assert status_of(code) == (403 if code == "INSUFFICIENT_SCOPE" else 401)


@pytest.mark.parametrize("code", TokenCode)
def test_the_challenge_names_an_error_only_when_a_token_was_there(code):
    value = challenge(code)
    assert value.startswith('Bearer realm="everyhop"')
    if code in {"MISSING_TOKEN", "USER_REQUIRED"}:
        assert "error" not in value
    elif code == "INSUFFICIENT_SCOPE":
        assert value.endswith('error="insufficient_scope"')
    else:
        assert value.endswith('error="invalid_token"')


def test_the_error_is_one_of_trust():
    error = TokenError(TokenCode.TOKEN_EXPIRED, "over")
    assert isinstance(error, TrustError)
    assert (error.token_code, error.message, error.code) == ("TOKEN_EXPIRED", "over", "TOKEN_REFUSED")


@pytest.mark.parametrize("code", TokenCode)
def test_every_code_has_a_meaning_and_a_remedy(code):
    assert all(meaning_of(code))
    assert meaning_of(str(code)) == meaning_of(code)


@pytest.mark.parametrize("text", ["", "no-rule", "token_expired", "TOKEN", "__members__"])
def test_what_is_no_code_means_nothing(text):
    assert meaning_of(text) is None
