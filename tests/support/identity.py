# SPDX-License-Identifier: Apache-2.0
"""Material for tests of identity: a clock, randomness, and certificates that may be wrong in any one respect.

Nothing here uses the issuing code of the product: what checks it must not share its mistakes.
"""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
DOMAIN = "shop.example"
DOMAIN_ID = f"spiffe://{DOMAIN}"
WORKLOAD_ID = f"{DOMAIN_ID}/service/orders"
HOUR = timedelta(hours=1)

Extensions = dict[str, tuple[x509.ExtensionType, bool] | None]


@dataclass
class FakeClock:
    """A clock that moves when told to."""

    moment: datetime = NOW

    def now(self) -> datetime:
        return self.moment

    def advance(self, by: timedelta) -> None:
        self.moment += by


class TestEntropy:
    """Real randomness; tests that need chosen bytes bring their own."""

    __test__ = False

    def token_bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)

    def fraction(self) -> float:
        return random.random()


def new_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


NO_NAME = x509.Name([])


def key_usage(*bits: str) -> x509.KeyUsage:
    every = [
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ]
    return x509.KeyUsage(**{bit: bit in bits for bit in every})


def uris(*texts: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(text) for text in texts])


BOTH = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


def leaf_extensions(uri: str = WORKLOAD_ID) -> Extensions:
    return {
        "constraints": (x509.BasicConstraints(ca=False, path_length=None), True),
        "usage": (key_usage("digital_signature"), True),
        "purposes": (BOTH, False),
        "names": (uris(uri), True),
    }


def ca_extensions(uri: str | None = DOMAIN_ID, path_length: int | None = None) -> Extensions:
    return {
        "constraints": (x509.BasicConstraints(ca=True, path_length=path_length), True),
        "usage": (key_usage("key_cert_sign", "crl_sign"), True),
        "names": None if uri is None else (uris(uri), False),
    }


def certificate(
    *,
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    extensions: Extensions,
    not_before: datetime = NOW - HOUR,
    not_after: datetime = NOW + HOUR,
    serial: int | None = None,
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    for entry in extensions.values():
        if entry is not None:
            builder = builder.add_extension(entry[0], critical=entry[1])
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@dataclass
class TestCa:
    """A certificate authority that signs whatever it is asked to."""

    __test__ = False

    common: str = "test ca"
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    extensions: Extensions = field(default_factory=ca_extensions)
    not_before: datetime = NOW - 2 * HOUR
    not_after: datetime = NOW + 24 * HOUR
    parent: TestCa | None = None

    def __post_init__(self) -> None:
        signed_by = self.parent or self
        self.der = certificate(
            subject=name(self.common),
            issuer=name(signed_by.common),
            public_key=self.key.public_key(),
            signer=signed_by.key,
            extensions=self.extensions,
            not_before=self.not_before,
            not_after=self.not_after,
        )

    def leaf(
        self,
        *,
        subject: x509.Name = NO_NAME,
        key: ec.EllipticCurvePrivateKey | None = None,
        not_before: datetime = NOW - HOUR,
        not_after: datetime = NOW + HOUR,
        uri: str = WORKLOAD_ID,
        **changed: tuple[x509.ExtensionType, bool] | None,
    ) -> bytes:
        """Return a right leaf but for the extensions named; None leaves one out, a new name adds one."""
        return certificate(
            subject=subject,
            issuer=name(self.common),
            public_key=(key or new_key()).public_key(),
            signer=self.key,
            extensions={**leaf_extensions(uri), **changed},
            not_before=not_before,
            not_after=not_after,
        )
