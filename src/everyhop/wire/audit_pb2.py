# SPDX-License-Identifier: Apache-2.0
"""Messages of proto/audit.proto; written by tools/generate_wire.py, not by hand."""

from __future__ import annotations

from everyhop.wire.schema import build

_SCHEMA = (
    b'\n\x0baudit.proto\x12\x14everyhop.'
    b'workload.v1"\xbc\x03\n\x05Event\x12\x0e\n'
    b'\x02id\x18\x01 \x01(\tR\x02id\x12\x12\n\x04time\x18\x02 '
    b'\x01(\x03R\x04time\x12\x16\n\x06action\x18\x03 \x01('
    b'\tR\x06action\x12\x18\n\x07outcome\x18\x04 \x01'
    b'(\tR\x07outcome\x12#\n\rresource_'
    b'type\x18\x05 \x01(\tR\x0cresourceType'
    b'\x12\x1f\n\x0bresource_id\x18\x06 \x01(\tR\nr'
    b'esourceId\x12\x16\n\x06caller\x18\x07 \x01('
    b'\tR\x06caller\x12\x12\n\x04user\x18\x08 \x01(\tR'
    b'\x04user\x12\x16\n\x06method\x18\t \x01(\tR\x06m'
    b'ethod\x12\x14\n\x05route\x18\n \x01(\tR\x05ro'
    b'ute\x12\x16\n\x06status\x18\x0b \x01(\rR\x06sta'
    b'tus\x12\x1a\n\x08duration\x18\x0c \x01(\x01R\x08d'
    b'uration\x12\x14\n\x05trace\x18\r \x01(\tR\x05'
    b'trace\x12\x1a\n\x08snapshot\x18\x0e \x01(\tR'
    b'\x08snapshot\x12\x1a\n\x08decision\x18\x0f '
    b'\x01(\tR\x08decision\x12;\n\x08metadat'
    b'a\x18\x10 \x03(\x0b2\x1f.everyhop.workl'
    b'oad.v1.MetadatumR\x08metada'
    b'ta"\x86\x01\n\tMetadatum\x12\x12\n\x04name'
    b'\x18\x01 \x01(\tR\x04name\x12\x14\n\x04text\x18\x02 \x01'
    b'(\tH\x00R\x04text\x12\x16\n\x05whole\x18\x03 \x01('
    b'\x12H\x00R\x05whole\x12\x18\n\x06number\x18\x04 \x01'
    b'(\x01H\x00R\x06number\x12\x14\n\x04flag\x18\x05 \x01'
    b'(\x08H\x00R\x04flagB\x07\n\x05value"\x95\x01\n\r'
    b'RecordRequest\x123\n\x06events\x18'
    b'\x01 \x03(\x0b2\x1b.everyhop.workloa'
    b'd.v1.EventR\x06events\x12\x18\n\x07dr'
    b'opped\x18\x02 \x01(\x04R\x07dropped\x12\x1b\n\t'
    b'spiffe_id\x18\x03 \x01(\tR\x08spiffeI'
    b'd\x12\x18\n\x07durable\x18\x04 \x01(\x08R\x07dura'
    b'ble"@\n\x0eRecordResponse\x12\x14\n'
    b'\x05taken\x18\x01 \x01(\rR\x05taken\x12\x18\n\x07r'
    b'efused\x18\x02 \x01(\rR\x07refused2\\\n'
    b'\x05Audit\x12S\n\x06Record\x12#.every'
    b'hop.workload.v1.RecordRe'
    b'quest\x1a$.everyhop.workloa'
    b'd.v1.RecordResponseb\x06pro'
    b'to3'
)
build(_SCHEMA, globals())
