# SPDX-License-Identifier: Apache-2.0
"""Seals: what a producer signs about its own records, so that nobody else can invent, alter or renumber one.

A seal is over records ``first`` to ``last`` of one producer, without a gap between them: their hashes in order, the
digest of the producer's seal before, the time, the certificate of the signer.  Who may sign for which producer is
decided by the caller.  Pure: keys and certificates come as values.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, NamedTuple, Self

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from everyhop.auditlog.codec import encode_record
from everyhop.auditlog.model import Moment, Name, Record
from everyhop.core.errors import InputError
from everyhop.jose.algorithms import Algorithm, is_signed_by
from everyhop.spiffe.x509_svid import check_leaf
from everyhop.tlog.merkle import leaf_hash
from everyhop.x509.certificates import decode_certificate
from everyhop.x509.keys import PrivateKey
from everyhop.x509.thumbprint import sha256_fingerprint

MAX_SEALED: Final = 500
MARK_BYTES: Final = 8
AGENT_PATH: Final = "/everyhop/agent/"
"""Beginning of the paths of agents' SPIFFE IDs; no policy can give one to a service."""

_DOMAIN: Final = b"everyhop record seal v1\n"
_LEAVES: Final = b"everyhop sealed records v1\n"
_HASH_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_PRODUCER: Final = re.compile(r"[\x21-\x7e]{1,128}")
_AGENT: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_ES256: Final = ec.ECDSA(hashes.SHA256())
_Hash = Annotated[bytes, msgspec.Meta(min_length=_HASH_BYTES, max_length=_HASH_BYTES)]
_Number = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class SealError(InputError):
    """A seal that does not fit; ``reason`` is a stable word for it."""

    code = "SEAL_REFUSED"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One signature over records ``first`` to ``last`` of ``producer``.

    ``digest`` is over the hashes of the records; ``previous`` is :func:`seal_digest` of the producer's seal before,
    empty for its first; ``certificate`` the SHA-256 of the signer's certificate in hex; ``signature`` ES256, r and s.
    ``marks`` holds the first 8 bytes of each record's hash.  It is not signed: it only tells which record is another.
    """

    producer: Name
    first: _Number
    last: _Number
    digest: _Hash
    previous: Annotated[bytes, msgspec.Meta(max_length=_HASH_BYTES)] = b""
    time: Moment
    certificate: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    signature: Annotated[bytes, msgspec.Meta(min_length=_SIGNATURE_BYTES, max_length=_SIGNATURE_BYTES)]
    marks: Annotated[bytes, msgspec.Meta(max_length=MAX_SEALED * MARK_BYTES)] = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedResult:
    """What became of a sealed batch: all of it is stored, or nothing.

    ``held`` is the highest number of the producer that is durable, ``head`` the digest of its last seal.
    ``conflicts`` are ids of the batch that other records have.
    """

    held: int
    head: bytes
    stored: int = 0
    duplicates: int = 0
    conflicts: tuple[str, ...] = ()


class Stored(NamedTuple):
    """A line of the log, and the place that its row names."""

    producer: str
    seq: int
    line: bytes


@dataclass(frozen=True, slots=True)
class SealKey:
    """A key to seal with, and the chain (DER, leaf first) of the X509-SVID that it belongs to."""

    chain: tuple[bytes, ...]
    key: PrivateKey
    expires_at: datetime
    thumbprint: str

    @classmethod
    def of(cls, chain: Sequence[bytes], key: PrivateKey, expires_at: datetime) -> Self:
        """Bring them together."""
        return cls(tuple(chain), key, expires_at, sha256_fingerprint(chain[0]))


def sealed_hash(record: Record) -> bytes:
    """Return the hash of a record as it is sealed: that of its leaf.  Persons in it are pseudonyms already."""
    return leaf_hash(encode_record(record))


def digest_of(leaves: Sequence[bytes]) -> bytes:
    """Return the digest over the hashes of records in their order."""
    return hashlib.sha256(_LEAVES + b"".join(leaves)).digest()


def marks_of(leaves: Sequence[bytes]) -> bytes:
    """Return the marks of records by their hashes."""
    return b"".join(leaf[:MARK_BYTES] for leaf in leaves)


def seal_records(
    producer: str, first: int, leaves: Sequence[bytes], *, previous: bytes, now: datetime, key: SealKey
) -> Seal:
    """Seal records by their hashes, the first of which has the number ``first``.  Raises SealError for none or too many."""
    if not 0 < len(leaves) <= MAX_SEALED:
        raise SealError("size", f"a seal is over 1 to {MAX_SEALED} records")
    check_producer(producer)
    unsigned = Seal(
        producer=producer,
        first=first,
        last=first + len(leaves) - 1,
        digest=digest_of(leaves),
        previous=previous,
        time=now,
        certificate=key.thumbprint,
        signature=bytes(_SIGNATURE_BYTES),
        marks=marks_of(leaves),
    )
    r, s = decode_dss_signature(key.key.sign(signed_bytes(unsigned), _ES256))
    half = _SIGNATURE_BYTES // 2
    return msgspec.structs.replace(unsigned, signature=r.to_bytes(half, "big") + s.to_bytes(half, "big"))


def signed_bytes(seal: Seal) -> bytes:
    """Return what is signed: one member a line, so that no two seals have the same text."""
    members = (
        seal.producer,
        str(seal.first),
        str(seal.last),
        seal.digest.hex(),
        seal.previous.hex() or "-",
        str((seal.time - _EPOCH) // _MICROSECOND),
        seal.certificate,
    )
    return _DOMAIN + "\n".join(members).encode() + b"\n"


def seal_digest(seal: Seal) -> bytes:
    """Return what the producer's next seal names as ``previous``."""
    return hashlib.sha256(signed_bytes(seal) + seal.signature).digest()


def check_signature(seal: Seal, certificate_der: bytes) -> None:
    """Raise SealError unless the signature is the certificate's; InputError when that is none."""
    check_producer(seal.producer)
    if sha256_fingerprint(certificate_der) != seal.certificate:
        raise SealError("certificate", "the certificate is not the one that the seal names")
    key = decode_certificate(certificate_der).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not is_signed_by(
        key, Algorithm.ES256, seal.signature, signed_bytes(seal)
    ):
        raise SealError("signature", f"the signature over {_name(seal)} is not its signer's")


def check_records(seal: Seal, records: Sequence[Record]) -> list[bytes]:
    """Return the hashes of the records that a seal is over; raises SealError when it is over others."""
    if len(records) > MAX_SEALED or len(records) != seal.last - seal.first + 1:
        raise SealError("numbers", f"{_name(seal)} are not {len(records)} records")
    for number, record in enumerate(records, seal.first):
        if (record.producer, record.seq) != (seal.producer, number):
            raise SealError("numbers", f"{record.producer[:128]} {record.seq} stands among {_name(seal)}")
    leaves = [sealed_hash(record) for record in records]
    if digest_of(leaves) != seal.digest:
        raise SealError("digest", f"the seal of {_name(seal)} is over other records")
    return leaves


def signer_of(certificate_der: bytes) -> str:
    """Return the SPIFFE ID that a signer's certificate names.  Raises InputError or SvidError."""
    return str(check_leaf(decode_certificate(certificate_der)))


def check_producer(producer: str) -> None:
    """Raise SealError for a name that cannot be sealed: 1 to 128 printable ASCII characters without a space can."""
    if not _PRODUCER.fullmatch(producer):
        raise SealError("producer", "a producer's name is 1 to 128 printable ASCII characters")


def agent_path(agent: str) -> str:
    """Return the path of an agent's SPIFFE ID.  Raises InputError for a name that has no place in one."""
    if not _AGENT.fullmatch(agent):
        raise InputError(f"not the name of an agent: {agent[:80]!r}", hint="1 to 128 of A-Z a-z 0-9 . _ -")
    return AGENT_PATH + agent


def _name(seal: Seal) -> str:
    return f"{seal.producer} {seal.first} to {seal.last}"
