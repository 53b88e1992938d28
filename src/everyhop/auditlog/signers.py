# SPDX-License-Identifier: Apache-2.0
"""Who may seal: agents and the server, by an X509-SVID that held at the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.auditlog.sealing import AGENT_PATH, SealError
from everyhop.core.errors import EveryhopError
from everyhop.spiffe.x509_svid import check_leaf, check_signing_certificate
from everyhop.x509.certificates import decode_certificate, split_certificates
from everyhop.x509.chain import verify_chain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cryptography.x509 import Certificate

SERVER_PATH: Final = "/everyhop/server"


def is_signer(path: str) -> bool:
    """Tell whether the path of a SPIFFE ID is one that seals are made with; no policy can give it to a service."""
    return path == SERVER_PATH or path.startswith(AGENT_PATH)


class Signers:
    """Certificates of signers, each chain checked once."""

    def __init__(self, certificates: Mapping[str, bytes], authorities: Sequence[bytes]) -> None:
        self._certificates = certificates
        self._roots = [decode_certificate(der) for der in authorities]
        self._checked: dict[str, tuple[str, datetime, datetime] | EveryhopError] = {}

    def at(self, thumbprint: str, moment: datetime) -> str:
        """Return the SPIFFE ID of a signer whose certificate held at ``moment``.

        Raises SealError for one that is not there, held at another time or is no signer's, and what the chain breaks.
        """
        leaf = decode_certificate(self.leaf(thumbprint))
        if not leaf.not_valid_before_utc <= moment <= leaf.not_valid_after_utc:
            raise SealError("time", "the signer's certificate did not hold at the time of the seal")
        known = self._checked.get(thumbprint)
        if known is None:
            try:
                known = self._check(thumbprint, moment)
            except EveryhopError as error:
                known = error
            self._checked[thumbprint] = known
        if isinstance(known, EveryhopError):
            raise known
        spiffe_id, start, end = known
        if not start <= moment <= end:
            raise SealError("time", "the signer's certificate did not hold at the time of the seal")
        return spiffe_id

    def leaf(self, thumbprint: str) -> bytes:
        """Return a signer's certificate, DER.  Raises SealError when it is not there."""
        return self._chain(thumbprint)[0]

    def _chain(self, thumbprint: str) -> tuple[bytes, ...]:
        joined = self._certificates.get(thumbprint)
        if not joined:
            raise SealError("certificate", "the certificate of the signer is not there")
        return split_certificates(joined)

    def _check(self, thumbprint: str, moment: datetime) -> tuple[str, datetime, datetime]:
        leaf, *between = (decode_certificate(der) for der in self._chain(thumbprint))
        spiffe_id = check_leaf(leaf)
        if not is_signer(spiffe_id.path):
            raise SealError("signer", f"{spiffe_id} may not seal")
        for certificate in between:
            check_signing_certificate(certificate)
        path = verify_chain(leaf, between, self._roots_of(leaf), moment)
        start = max(one.not_valid_before_utc for one in path)
        end = min(one.not_valid_after_utc for one in path)
        return str(spiffe_id), start, end

    def _roots_of(self, leaf: Certificate) -> list[Certificate]:
        """Return the authorities that are valid with the leaf: of all that ever were, those of its days."""
        return [
            root
            for root in self._roots
            if root.not_valid_before_utc <= leaf.not_valid_after_utc
            and leaf.not_valid_before_utc <= root.not_valid_after_utc
        ]
