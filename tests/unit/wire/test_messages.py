# SPDX-License-Identifier: Apache-2.0
"""The messages: generated from their schemas, with the field numbers of their standards."""

import importlib
import importlib.util
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor

from everyhop.wire import envoy, envoy_sds_pb2, ext_authz, ext_authz_pb2, tokens, workload_pb2
from everyhop.wire.schema import POOL

ROOT = Path(__file__).parents[3]


def test_generating_again_changes_nothing():
    pytest.importorskip("grpc_tools")
    spec = importlib.util.spec_from_file_location("generate_wire", ROOT / "tools" / "generate_wire.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.outdated(write=False) == []


def fields_of(descriptor):
    return {f.name: (f.number, f.type, f.is_repeated) for f in descriptor.fields}


def test_the_workload_api_is_that_of_another_implementation():
    theirs = importlib.import_module("spiffe._proto.workload_pb2").DESCRIPTOR
    for name, descriptor in theirs.message_types_by_name.items():
        assert fields_of(getattr(workload_pb2, name).DESCRIPTOR) == fields_of(descriptor), name
    ours = workload_pb2.DESCRIPTOR.services_by_name["SpiffeWorkloadAPI"]
    assert ours.full_name == "SpiffeWorkloadAPI"
    assert {m.name for m in theirs.services_by_name["SpiffeWorkloadAPI"].methods} < {
        m.name for m in ours.methods
    }


def test_both_implementations_live_in_one_process():
    theirs = importlib.import_module("spiffe._proto.workload_pb2")
    ours = workload_pb2.X509SVIDResponse(svids=[workload_pb2.X509SVID(spiffe_id="spiffe://a/b", hint="b")])
    assert theirs.X509SVIDResponse.FromString(ours.SerializeToString()).svids[0].hint == "b"


ENVOY = {
    "Node": (1, 2, 6),
    "Status": (1, 2),
    "DiscoveryRequest": (1, 2, 3, 4, 5, 6),
    "DiscoveryResponse": (1, 2, 4, 5),
    "DataSource": (1, 2, 3, 4),
    "TypedExtensionConfig": (1, 2),
    "TlsCertificate": (1, 2),
    "StringMatcher": (1, 2, 3, 6),
    "SubjectAltNameMatcher": (1, 2),
    "CertificateValidationContext": (1, 8, 12, 15),
    "SPIFFECertValidatorConfig": (1,),
    "GenericSecret": (1,),
    "Secret": (1, 2, 4, 5),
}


def test_field_numbers_of_envoy():
    found = {
        name: tuple(f.number for f in descriptor.fields)
        for name, descriptor in envoy_sds_pb2.DESCRIPTOR.message_types_by_name.items()
    }
    assert found == ENVOY
    assert envoy.SubjectAltNameMatcher.URI == 3


EXT_AUTHZ = {
    "HeaderValue": (1, 2, 3),
    "HeaderMap": (1,),
    "HeaderValueOption": (1, 3),
    "SocketAddress": (2, 3),
    "Address": (1,),
    "Metadata": (1,),
    "AttributeContext": (1, 2, 4, 10, 11),
    "CheckRequest": (1,),
    "Status": (1, 2),
    "HttpStatus": (1,),
    "DeniedHttpResponse": (1, 2, 3),
    "OkHttpResponse": (2, 5),
    "CheckResponse": (1, 2, 3, 4),
}


def test_field_numbers_of_external_authorization():
    found = {
        name: tuple(f.number for f in descriptor.fields)
        for name, descriptor in ext_authz_pb2.DESCRIPTOR.message_types_by_name.items()
    }
    assert found == EXT_AUTHZ
    peer, http = (
        ext_authz_pb2.AttributeContext.DESCRIPTOR.nested_types_by_name[name]
        for name in ("Peer", "HttpRequest")
    )
    assert [f.number for f in peer.fields] == [1, 4, 5]
    assert [f.number for f in http.fields] == [1, 2, 3, 4, 5, 6, 13]
    assert ext_authz.OVERWRITE == ext_authz.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def test_no_byte_of_a_strangers_request_makes_a_question_unreadable():
    request = ext_authz.CheckRequest()
    http = request.attributes.request.http
    http.path = http.method = http.host = b"\xff\x00"
    http.header_map.headers.add(key=b"\xfe", raw_value=b"\xff")
    assert ext_authz.CheckRequest.FromString(request.SerializeToString()) == request


THEIRS = {
    "envoy.service.discovery.v3.discovery_pb2": ("DiscoveryRequest", "DiscoveryResponse"),
    "envoy.config.core.v3.base_pb2": ("Node", "DataSource"),
    "envoy.config.core.v3.extension_pb2": ("TypedExtensionConfig",),
    "envoy.extensions.transport_sockets.tls.v3.secret_pb2": ("Secret", "GenericSecret"),
    "envoy.extensions.transport_sockets.tls.v3.common_pb2": (
        "TlsCertificate",
        "CertificateValidationContext",
        "SubjectAltNameMatcher",
    ),
    "envoy.extensions.transport_sockets.tls.v3.tls_spiffe_validator_config_pb2": (
        "SPIFFECertValidatorConfig",
    ),
    "envoy.type.matcher.v3.string_pb2": ("StringMatcher",),
}


@pytest.mark.parametrize("module", THEIRS)
def test_fields_are_those_of_the_published_schema(module):
    try:
        theirs = importlib.import_module(module)
    except ImportError:
        pytest.skip("xds-protos is not installed beside the tests")
    for name in THEIRS[module]:
        published = getattr(theirs, name).DESCRIPTOR.fields_by_name
        for field in getattr(envoy, name).DESCRIPTOR.fields:
            other = published[field.name]
            assert (field.number, field.type, field.is_repeated) == (
                other.number,
                other.type,
                other.is_repeated,
            )


def test_well_known_types_belong_to_our_pool():
    response = workload_pb2.ValidateJWTSVIDResponse()
    response.claims.update({"aud": ["a"], "n": 1})
    assert response.claims.DESCRIPTOR.file.pool is POOL
    assert FieldDescriptor.TYPE_MESSAGE
    proto = descriptor_pb2.FileDescriptorProto()
    workload_pb2.DESCRIPTOR.CopyToProto(proto)
    assert proto.package == ""


def test_names_on_the_wire():
    assert ext_authz.CHECK == "/envoy.service.auth.v3.Authorization/Check"
    assert tokens.MINT == "/everyhop.workload.v1.Tokens/Mint"
    assert envoy.STREAM_SECRETS == "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
    assert envoy.SECRET_TYPE_URL.endswith("/envoy.extensions.transport_sockets.tls.v3.Secret")
    assert envoy.SPIFFE_VALIDATOR_TYPE_URL.endswith(".SPIFFECertValidatorConfig")
