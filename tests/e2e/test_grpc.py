# SPDX-License-Identifier: Apache-2.0
"""gRPC from one ordinary client to an ordinary server, through both sidecars: unary, streams, trailers, refusals."""

from __future__ import annotations

import json
import sys

from trust_domain import TrustDomainUnderTest

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations:
      get: {grpc: shop.v1.Orders/Get}
      watch: {grpc: shop.v1.Orders/Watch}
      fail: {grpc: shop.v1.Orders/Fail}
      delete: {grpc: shop.v1.Orders/Delete}
allow:
  - {from: storefront, to: orders, operations: [get, watch, fail]}
"""

SERVICE = """
import os, grpc
from concurrent import futures

def metadata(context):
    return dict(context.invocation_metadata())

def get(request, context):
    context.set_trailing_metadata((("x-seen", "yes"),))
    return request + b" from " + metadata(context)["x-everyhop-caller"].encode()

def watch(request, context):
    for number in range(3):
        yield request + str(number).encode()

def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")

class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        name = details.method.rpartition("/")[2]
        if name == "Watch":
            return grpc.unary_stream_rpc_method_handler(watch)
        return grpc.unary_unary_rpc_method_handler(fail if name == "Fail" else get)

server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Handler(),))
server.add_insecure_port("unix:" + os.environ["EVERYHOP_SOCKET"])
server.start()
server.wait_for_termination()
"""

CLIENT = """
import json, os, grpc
channel = grpc.insecure_channel(
    "unix:" + os.environ["EVERYHOP_EGRESS"], options=[("grpc.default_authority", "orders")]
)
seen = {}
call = channel.unary_unary("/shop.v1.Orders/Get").with_call(b"order", timeout=10)
seen["get"] = call[0].decode()
seen["trailer"] = dict(call[1].trailing_metadata()).get("x-seen")
seen["watch"] = [m.decode() for m in channel.unary_stream("/shop.v1.Orders/Watch")(b"n", timeout=10)]
for name in ("Fail", "Delete", "Nothing"):
    try:
        channel.unary_unary("/shop.v1.Orders/" + name)(b"x", timeout=10)
        seen[name] = "OK"
    except grpc.RpcError as error:
        seen[name] = error.code().name
print(json.dumps(seen))
"""


def test_grpc_end_to_end() -> None:
    with TrustDomainUnderTest(POLICY) as own:
        own.run("orders", sys.executable, "-c", SERVICE)
        done = own.once("storefront", sys.executable, "-c", CLIENT)
        assert json.loads(done.stdout or "{}") == {
            "get": "order from spiffe://shop.example/service/storefront",
            "trailer": "yes",
            "watch": ["n0", "n1", "n2"],
            "Fail": "FAILED_PRECONDITION",
            "Delete": "PERMISSION_DENIED",
            "Nothing": "PERMISSION_DENIED",
        }, done.stderr
