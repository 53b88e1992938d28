# SPDX-License-Identifier: Apache-2.0
"""Message classes from compiled schemas, in a descriptor pool of our own.

protobuf keeps one process-wide pool in which every full name may exist once.  The Workload API's messages
have no package, so a process that loads both everyhop and another SPIFFE library would fail at import; with
a pool of our own both live side by side.  Only public protobuf API is used, so the generated modules carry
no check for one runtime version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf import any_pb2, descriptor_pool, message_factory, struct_pb2

if TYPE_CHECKING:
    from collections.abc import MutableMapping

POOL: Final = descriptor_pool.DescriptorPool()
for _well_known in (any_pb2, struct_pb2):
    POOL.AddSerializedFile(_well_known.DESCRIPTOR.serialized_pb)


def build(serialized: bytes, namespace: MutableMapping[str, Any]) -> None:
    """Add a serialized ``FileDescriptorProto`` to the pool and its message classes to a module's globals.

    Well-known types (``Struct``, ``Any``) belong to this pool as well: fill them through the field, never by
    assigning an instance of the global class.
    """
    file = POOL.AddSerializedFile(serialized)
    namespace["DESCRIPTOR"] = file
    for name, descriptor in file.message_types_by_name.items():
        namespace[name] = message_factory.GetMessageClass(descriptor)
