# SPDX-License-Identifier: Apache-2.0
"""All four kinds of calls, in both gRPC stacks, with functions of every sort that the stacks take."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import grpc
import pytest

from everyhop.core.errors import Unavailable
from everyhop.integrations import _workload, grpc as threaded, grpc_aio
from everyhop.sdk import caller, require, serving
from everyhop.sdk.model import Refusal
from everyhop.testing import verified_call

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def loud(message):
    if message == b"bad":
        raise ValueError("secret detail")
    return message.decode()


def name():
    return caller().service.encode()


def sync_behaviours(seen):
    def one(request, context):
        seen.append(request if isinstance(request, str) else list(request))
        return name()

    def many(request, context):
        seen.append(request if isinstance(request, str) else list(request))
        for _ in range(2):
            yield name()

    return {"unary_unary": one, "unary_stream": many, "stream_unary": one, "stream_stream": many}


def async_behaviours(seen):
    async def one(request, context):
        seen.append(request)
        return name()

    async def many(request, context):
        seen.append(request)
        for _ in range(2):
            await asyncio.sleep(0)
            yield name()

    async def stream_one(requests, context):
        seen.append([request async for request in requests])
        return name()

    async def stream_many(requests, context):
        seen.append([request async for request in requests])
        for _ in range(2):
            yield name()

    return {
        "unary_unary": one,
        "unary_stream": many,
        "stream_unary": stream_one,
        "stream_stream": stream_many,
    }


def writing_behaviours(seen):
    async def many(request, context):
        seen.append(request)
        for _ in range(2):
            await context.write(name())

    return {"unary_stream": many}


def handlers(behaviours):
    made = {}
    for kind, behaviour in behaviours.items():
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        made[kind] = make(behaviour, request_deserializer=loud, response_serializer=None)
    return grpc.method_handlers_generic_handler("t.T", made)


@contextlib.contextmanager
def served(stack, guard, path, behaviours):
    """Serve in one of the stacks, on the workload's own Unix socket."""
    if stack == "threads":
        with ThreadPoolExecutor(4) as executor:
            interceptor = threaded.ServerInterceptor(guard, sidecar_socket=path)
            server = grpc.server(executor, interceptors=[interceptor])
            server.add_generic_rpc_handlers((handlers(behaviours),))
            server.add_insecure_port(f"unix:{path}")
            server.start()
            try:
                yield
            finally:
                server.stop(0).wait()
        return
    loop = asyncio.new_event_loop()

    async def start():
        interceptor = grpc_aio.ServerInterceptor(guard, sidecar_socket=path)
        server = grpc.aio.server(interceptors=[interceptor])
        server.add_generic_rpc_handlers((handlers(behaviours),))
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        return server

    with ThreadPoolExecutor(1) as runner:
        ready = loop.run_until_complete
        server = runner.submit(ready, start()).result(10)
        running = runner.submit(loop.run_forever)
        try:
            yield
        finally:
            # A function that runs in a thread waits for the loop, so the loop must not end before it.
            asyncio.run_coroutine_threadsafe(server.stop(5), loop).result(10)
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.05), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            running.result(10)
            loop.close()


def call(path, kind, message=b"hello", method=None, **named):
    with grpc.insecure_channel(f"unix:{path}") as channel:
        ask = getattr(channel, kind)(f"/t.T/{method or kind}")
        given = iter([message, message]) if kind.startswith("stream") else message
        answer = ask(given, timeout=10, **named)
        return list(answer) if kind.endswith("stream") else answer


@pytest.fixture
def path(tmp_path_factory):
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ehg") as directory:
        yield f"{directory}/app.sock"


STACKS = [
    ("threads", sync_behaviours),
    ("asyncio", async_behaviours),
    ("asyncio", sync_behaviours),
]


@pytest.mark.parametrize(("stack", "behaviours"), STACKS)
def test_every_kind_of_call(stack, behaviours, guard, path):
    seen = []
    with served(stack, guard, path, behaviours(seen)):
        for kind in KINDS:
            expected = [b"storefront"] * 2 if kind.endswith("stream") else b"storefront"
            assert call(path, kind) == expected, kind
    assert seen == ["hello", "hello", ["hello", "hello"], ["hello", "hello"]]
    assert [one.raw_path for one in guard.requests] == [f"/t.T/{kind}".encode() for kind in KINDS]
    assert all(one.via_sidecar and one.method == "POST" for one in guard.requests)
    assert caller() is None


def test_a_function_that_writes_its_answers(guard, path):
    seen = []
    with served("asyncio", guard, path, writing_behaviours(seen)):
        assert call(path, "unary_stream") == [b"storefront"] * 2


@pytest.mark.parametrize(("stack", "behaviours"), STACKS)
def test_a_refused_call_is_not_even_parsed(stack, behaviours, guard, path, refusal):
    guard.refusal = refusal
    seen = []
    with served(stack, guard, path, behaviours(seen)):
        for kind in KINDS:
            with pytest.raises(grpc.RpcError) as caught:
                call(path, kind, b"bad")
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, kind
            trailers = dict(caught.value.trailing_metadata())
            assert (trailers["everyhop-code"], trailers["everyhop-decision"]) == ("TOKEN_EXPIRED", "d-2")
            assert "operators" not in caught.value.details()
        with pytest.raises(grpc.RpcError) as caught:  # nor told what methods there are
            call(path, "unary_unary", method="Unknown")
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert seen == []


@pytest.mark.parametrize(("stack", "behaviours"), STACKS)
def test_what_is_no_message_is_an_invalid_argument(stack, behaviours, guard, path):
    with served(stack, guard, path, behaviours([])):
        for kind in KINDS:
            with pytest.raises(grpc.RpcError) as caught:
                call(path, kind, b"bad")
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, kind
            assert dict(caught.value.trailing_metadata())["everyhop-code"] == "BODY_MALFORMED"
            assert "secret" not in caught.value.details()


@pytest.mark.parametrize("stack", ["threads", "asyncio"])
def test_an_unknown_method_is_unimplemented_for_a_verified_caller(stack, guard, path):
    with served(stack, guard, path, {}):
        with pytest.raises(grpc.RpcError) as caught:
            call(path, "unary_unary", method="Unknown")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_require_in_a_method(guard, path):
    def sync(request, context):
        require("other")

    async def coroutine(request, context):
        require("other")

    for stack, behaviour in (("threads", sync), ("asyncio", coroutine), ("asyncio", sync)):
        with served(stack, guard, path, {"unary_unary": behaviour}):
            with pytest.raises(grpc.RpcError) as caught:
                call(path, "unary_unary")
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert dict(caught.value.trailing_metadata())["everyhop-code"] == "ACCESS_DENIED"


@pytest.mark.parametrize("stack", ["threads", "asyncio"])
def test_without_an_agent_everything_is_unavailable(stack, path, monkeypatch):
    def refuse():
        raise Unavailable("no agent")

    monkeypatch.setattr(_workload, "own_workload", refuse)
    with served(stack, None, path, {"unary_unary": lambda request, context: b""}):
        with pytest.raises(grpc.RpcError) as caught:
            call(path, "unary_unary")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


# -- clients


class Tokens:
    def __init__(self):
        self.asked = []

    def for_call(self, target, method, path, *, x5t=None):
        self.asked.append((target, method, path, x5t))
        return "token"

    async def afor_call(self, target, method, path, *, x5t=None):
        return self.for_call(target, method, path, x5t=x5t)


@pytest.fixture
def workload():
    return SimpleNamespace(tokens=Tokens(), x509=SimpleNamespace(svid=SimpleNamespace(x5t="X")))


CURRENT = verified_call("list", user="alice", txn_token="txn")


@pytest.mark.parametrize("sidecar", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_threaded_client_carries_the_call_on(guard, path, workload, sidecar, kind):
    interceptor = threaded.ClientInterceptor("orders", workload, sidecar=sidecar)
    with (
        served("threads", guard, path, sync_behaviours([])),
        grpc.insecure_channel(f"unix:{path}") as plain,
        serving(CURRENT),
    ):
        channel = grpc.intercept_channel(plain, interceptor)
        given = iter([b"x"]) if kind.startswith("stream") else b"x"
        metadata = (("txn-token", "forged"), ("x-mine", "1"))
        answer = getattr(channel, kind)(f"/t.T/{kind}")(given, timeout=10, metadata=metadata)
        if kind.endswith("stream"):
            list(answer)
    check_sent(guard, workload, sidecar, kind)


@pytest.mark.parametrize("sidecar", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_an_asyncio_client_carries_the_call_on(guard, path, workload, sidecar, kind):
    async def run():
        interceptors = grpc_aio.client_interceptors("orders", workload, sidecar=sidecar)
        async with grpc.aio.insecure_channel(f"unix:{path}", interceptors=interceptors) as channel:
            given = iter([b"x"]) if kind.startswith("stream") else b"x"
            metadata = grpc.aio.Metadata(("txn-token", "forged"), ("x-mine", "1"))
            answer = getattr(channel, kind)(f"/t.T/{kind}")(given, timeout=10, metadata=metadata)
            if kind.endswith("stream"):
                async for _ in answer:
                    pass
            else:
                await answer

    with served("threads", guard, path, sync_behaviours([])), serving(CURRENT):
        asyncio.run(run())
    check_sent(guard, workload, sidecar, kind)


def check_sent(guard, workload, sidecar, kind):
    headers = [(name, value) for name, value in guard.request.headers if not name.startswith(b"grpc-")]
    assert [value for name, value in headers if name == b"txn-token"] == [b"txn"]
    assert [value for name, value in headers if name == b"x-mine"] == [b"1"]
    trace = next(value for name, value in headers if name == b"traceparent").decode()
    assert trace.split("-")[1] == CURRENT.trace.trace_id
    tokens = [value for name, value in headers if name == b"authorization"]
    assert tokens == ([] if sidecar else [b"Bearer token"])
    assert workload.tokens.asked == ([] if sidecar else [("orders", "POST", f"/t.T/{kind}", "X")])


def test_a_refusal_has_no_status_of_its_own_kind():
    from everyhop.integrations._grpc import status_of

    assert status_of(Refusal(418, "TEAPOT", "")) is grpc.StatusCode.PERMISSION_DENIED
