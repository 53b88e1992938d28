# SPDX-License-Identifier: Apache-2.0
"""Messages of proto/tokens.proto; written by tools/generate_wire.py, not by hand."""

from __future__ import annotations

from everyhop.wire.schema import build

_SCHEMA = (
    b'\n\x0ctokens.proto\x12\x14everyhop'
    b'.workload.v1"\x88\x01\n\x0bMintReq'
    b'uest\x12\x16\n\x06target\x18\x01 \x01(\tR\x06ta'
    b'rget\x12\x1c\n\toperation\x18\x02 \x01(\tR'
    b'\toperation\x12\x14\n\x05scope\x18\x03 \x03('
    b'\tR\x05scope\x12\x10\n\x03x5t\x18\x04 \x01(\tR\x03x'
    b'5t\x12\x1b\n\tspiffe_id\x18\x05 \x01(\tR\x08s'
    b'piffeId"C\n\x0cMintResponse\x12'
    b'\x14\n\x05token\x18\x01 \x01(\tR\x05token\x12\x1d\n'
    b'\nexpires_at\x18\x02 \x01(\x03R\texpir'
    b'esAt"\x91\x02\n\x0fExchangeRequest'
    b'\x12#\n\rsubject_token\x18\x01 \x01(\tR'
    b'\x0csubjectToken\x12,\n\x12subject'
    b'_token_type\x18\x02 \x01(\tR\x10subje'
    b'ctTokenType\x120\n\x14requested'
    b'_token_type\x18\x03 \x01(\tR\x12reque'
    b'stedTokenType\x12\x16\n\x06target\x18'
    b'\x04 \x01(\tR\x06target\x12\x1c\n\toperati'
    b'on\x18\x05 \x01(\tR\toperation\x12\x14\n\x05s'
    b'cope\x18\x06 \x03(\tR\x05scope\x12\x10\n\x03x5t'
    b'\x18\x07 \x01(\tR\x03x5t\x12\x1b\n\tspiffe_id'
    b'\x18\x08 \x01(\tR\x08spiffeId"s\n\x10Exch'
    b'angeResponse\x12\x14\n\x05token\x18\x01 '
    b'\x01(\tR\x05token\x12*\n\x11issued_tok'
    b'en_type\x18\x02 \x01(\tR\x0fissuedTok'
    b'enType\x12\x1d\n\nexpires_at\x18\x03 \x01'
    b'(\x03R\texpiresAt"2\n\x13WatchCo'
    b'ntextRequest\x12\x1b\n\tspiffe_i'
    b'd\x18\x01 \x01(\tR\x08spiffeId"+\n\rCon'
    b'textUpdate\x12\x1a\n\x08document\x18\x01'
    b' \x01(\x0cR\x08document2\x94\x02\n\x06Token'
    b's\x12M\n\x04Mint\x12!.everyhop.wor'
    b'kload.v1.MintRequest\x1a".e'
    b'veryhop.workload.v1.Mint'
    b'Response\x12Y\n\x08Exchange\x12%.e'
    b'veryhop.workload.v1.Exch'
    b'angeRequest\x1a&.everyhop.w'
    b'orkload.v1.ExchangeRespo'
    b'nse\x12`\n\x0cWatchContext\x12).ev'
    b'eryhop.workload.v1.Watch'
    b'ContextRequest\x1a#.everyho'
    b'p.workload.v1.ContextUpd'
    b'ate0\x01b\x06proto3'
)
build(_SCHEMA, globals())
