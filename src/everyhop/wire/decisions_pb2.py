# SPDX-License-Identifier: Apache-2.0
"""Messages of proto/decisions.proto; written by tools/generate_wire.py, not by hand."""

from __future__ import annotations

from everyhop.wire.schema import build

_SCHEMA = (
    b'\n\x0fdecisions.proto\x12\x14every'
    b'hop.workload.v1"\xe0\x02\n\x08Deci'
    b'sion\x12\x0e\n\x02id\x18\x01 \x01(\tR\x02id\x12\x12\n\x04'
    b'time\x18\x02 \x01(\x03R\x04time\x12\x18\n\x07allo'
    b'wed\x18\x03 \x01(\x08R\x07allowed\x12\x16\n\x06ca'
    b'ller\x18\x04 \x01(\tR\x06caller\x12\x1c\n\top'
    b'eration\x18\x05 \x01(\tR\toperation'
    b'\x12\x16\n\x06method\x18\x06 \x01(\tR\x06method'
    b'\x12\x12\n\x04path\x18\x07 \x01(\tR\x04path\x12\x12\n\x04'
    b'rule\x18\x08 \x01(\tR\x04rule\x12\x16\n\x06reas'
    b'on\x18\t \x01(\tR\x06reason\x12\x12\n\x04code'
    b'\x18\n \x01(\tR\x04code\x12\x16\n\x06status\x18\x0b'
    b' \x01(\rR\x06status\x12\x12\n\x04user\x18\x0c \x01'
    b'(\tR\x04user\x12\x1a\n\x08snapshot\x18\r \x01'
    b'(\tR\x08snapshot\x12\x16\n\x06detail\x18\x0e'
    b' \x01(\tR\x06detail\x12\x14\n\x05trace\x18\x0f '
    b'\x01(\tR\x05trace"\x84\x01\n\rReportReq'
    b'uest\x12<\n\tdecisions\x18\x01 \x03(\x0b2'
    b'\x1e.everyhop.workload.v1.D'
    b'ecisionR\tdecisions\x12\x18\n\x07dr'
    b'opped\x18\x02 \x01(\x04R\x07dropped\x12\x1b\n\t'
    b'spiffe_id\x18\x03 \x01(\tR\x08spiffeI'
    b'd"@\n\x0eReportResponse\x12\x14\n\x05t'
    b'aken\x18\x01 \x01(\rR\x05taken\x12\x18\n\x07ref'
    b'used\x18\x02 \x01(\rR\x07refused2`\n\tD'
    b'ecisions\x12S\n\x06Report\x12#.eve'
    b'ryhop.workload.v1.Report'
    b'Request\x1a$.everyhop.workl'
    b'oad.v1.ReportResponseb\x06p'
    b'roto3'
)
build(_SCHEMA, globals())
