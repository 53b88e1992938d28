# SPDX-License-Identifier: Apache-2.0
"""The examples that the JOSE documents print."""

from everyhop.jose import Jwk, decode_base64url, encode_base64url, thumbprint

RFC_7638_KEY = {
    "kty": "RSA",
    "n": (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3"
        "oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdA"
        "ZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-"
        "kEgU8awapJzKnqDKgw"
    ),
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}


def test_rfc_7638_section_3_1():
    jwk = Jwk.from_members(RFC_7638_KEY)
    assert thumbprint(jwk.key) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert jwk.to_members() == RFC_7638_KEY


def test_rfc_7515_appendix_c():
    data = bytes([3, 236, 255, 224, 193])
    assert encode_base64url(data) == "A-z_4ME"
    assert decode_base64url("A-z_4ME") == data
