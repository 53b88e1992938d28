# SPDX-License-Identifier: Apache-2.0
"""Messages of proto/envoy_xds.proto; written by tools/generate_wire.py, not by hand."""

from __future__ import annotations

from everyhop.wire.schema import build

_SCHEMA = (
    b'\n\x0fenvoy_xds.proto\x12\x11every'
    b'hop.wire.xds\x1a\x19google/pro'
    b'tobuf/any.proto"0\n\x04Node\x12'
    b'\x0e\n\x02id\x18\x01 \x01(\tR\x02id\x12\x18\n\x07clust'
    b'er\x18\x02 \x01(\tR\x07cluster"6\n\x06Sta'
    b'tus\x12\x12\n\x04code\x18\x01 \x01(\x05R\x04code\x12'
    b'\x18\n\x07message\x18\x02 \x01(\tR\x07messag'
    b'e"\x8c\x04\n\x15DeltaDiscoveryRequ'
    b'est\x12+\n\x04node\x18\x01 \x01(\x0b2\x17.ever'
    b'yhop.wire.xds.NodeR\x04node'
    b'\x12\x19\n\x08type_url\x18\x02 \x01(\tR\x07type'
    b'Url\x128\n\x18resource_names_su'
    b'bscribe\x18\x03 \x03(\tR\x16resourceN'
    b'amesSubscribe\x12<\n\x1aresourc'
    b'e_names_unsubscribe\x18\x04 \x03('
    b'\tR\x18resourceNamesUnsubscr'
    b'ibe\x12\x81\x01\n\x19initial_resource'
    b'_versions\x18\x05 \x03(\x0b2E.everyh'
    b'op.wire.xds.DeltaDiscove'
    b'ryRequest.InitialResourc'
    b'eVersionsEntryR\x17initialR'
    b'esourceVersions\x12%\n\x0erespo'
    b'nse_nonce\x18\x06 \x01(\tR\rrespons'
    b'eNonce\x12<\n\x0cerror_detail\x18\x07'
    b' \x01(\x0b2\x19.everyhop.wire.xds'
    b'.StatusR\x0berrorDetail\x1aJ\n\x1c'
    b'InitialResourceVersionsE'
    b'ntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14'
    b'\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01'
    b'"j\n\x08Resource\x12\x18\n\x07version\x18'
    b'\x01 \x01(\tR\x07version\x120\n\x08resour'
    b'ce\x18\x02 \x01(\x0b2\x14.google.protob'
    b'uf.AnyR\x08resource\x12\x12\n\x04name'
    b'\x18\x03 \x01(\tR\x04name"\xe1\x01\n\x16DeltaDi'
    b'scoveryResponse\x12.\n\x13syste'
    b'm_version_info\x18\x01 \x01(\tR\x11sy'
    b'stemVersionInfo\x129\n\tresou'
    b'rces\x18\x02 \x03(\x0b2\x1b.everyhop.wi'
    b're.xds.ResourceR\tresourc'
    b'es\x12\x19\n\x08type_url\x18\x04 \x01(\tR\x07ty'
    b'peUrl\x12\x14\n\x05nonce\x18\x05 \x01(\tR\x05no'
    b'nce\x12+\n\x11removed_resources'
    b'\x18\x06 \x03(\tR\x10removedResources'
    b'b\x06proto3'
)
build(_SCHEMA, globals())
