# SPDX-License-Identifier: Apache-2.0
"""Base64url and JSON: one spelling, one reading."""

import pytest

from everyhop.core.errors import InputError
from everyhop.jose import decode_base64url, encode_base64url, parse_json_object
from everyhop.jose.strict_json import parse_claims


@pytest.mark.parametrize(
    "text", ["A", "AA==", "AA=", "A A", "AA\n", "+w", "/w", "AB", "AAB", "é", "AA.", "_x", "\0", "AAAAA"]
)
def test_other_spellings_are_refused(text):
    with pytest.raises(InputError):
        decode_base64url(text)


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff\xfe\xfd", bytes(range(256))])
def test_bytes_come_back(data):
    assert decode_base64url(encode_base64url(data)) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"1",
        b'"x"',
        b"null",
        b"{",
        b"{}{}",
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'{"x":{"a":1,"a":2}}',
        b'{"x":[{"a":1,"a":2}]}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":"\\ud800"}',
        b'{"\\udfff":1}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":"\xff"}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\x01"}',
        b'{"a":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"a":' + b"[" * 5000,
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":"' + b"x" * 2000 + b'"}',
    ],
)
def test_json_with_two_readings_or_none_is_refused(data):
    limit = 10_000 if b"[[" in data or b"99" in data else 1000
    with pytest.raises(InputError):
        parse_json_object(data, max_bytes=limit)
    if len(data) <= limit:
        with pytest.raises(InputError):
            parse_claims(data)


def test_json_that_everyone_reads_alike():
    assert parse_json_object(b' {"a": [1, 2.5, "\xc3\xa9", null, true]}\n') == {
        "a": [1, 2.5, "é", None, True]
    }
    assert parse_json_object(b'{"many":[' + b",".join([b"{}"] * 100) + b"]}") == {"many": [{}] * 100}
