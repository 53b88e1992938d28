# SPDX-License-Identifier: Apache-2.0
"""The current call: seen below it in tasks and threads, and nowhere else."""

import asyncio
import contextvars
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from everyhop.sdk import Refusal, caller, carry, current, outgoing_headers, require, serving, user
from everyhop.testing import verified_call


def call(name):
    return verified_call(
        "list", caller=f"spiffe://shop.example/service/{name}", user=f"user-{name}", txn_token=f"t.{name}.s"
    )


def seen():
    return None if caller() is None else (str(caller()), str(user()))


def expected(name):
    return (f"spiffe://shop.example/service/{name}", f"user-{name}")


def test_outside_of_a_call_there_is_nobody():
    assert caller() is user() is current() is None
    with pytest.raises(Refusal) as refused:
        require("list")
    assert refused.value.status == 403


def test_require_refuses_another_operation():
    with serving(call("a")):
        assert require("list", "read").operation == "list"
        for operations in ((), ("read",), ("List",)):
            with pytest.raises(Refusal) as refused:
                require(*operations)
            assert (refused.value.status, refused.value.code) == (403, "ACCESS_DENIED")


def test_it_ends_with_the_block_whatever_happens():
    with pytest.raises(ZeroDivisionError), serving(call("a")):
        _ = 1 / 0
    assert current() is None
    with serving(call("a")):
        with serving(call("b")):
            assert seen() == expected("b")
        assert seen() == expected("a")


def test_a_generator_closed_in_another_context_does_not_fail():
    def body():
        with serving(call("a")):
            yield b"x"

    generator = body()
    contextvars.copy_context().run(next, generator)
    generator.close()
    assert current() is None


async def test_tasks_inherit_and_interleaved_requests_do_not_mix():
    async def inner(name):
        await asyncio.sleep(random.random() / 200)
        assert seen() == expected(name)
        assert outgoing_headers()["Txn-Token"] == f"t.{name}.s"
        return await asyncio.to_thread(seen)

    async def request(name):
        assert current() is None
        with serving(call(name)):
            await asyncio.sleep(random.random() / 200)
            results = await asyncio.gather(*(asyncio.create_task(inner(name)) for _ in range(3)))
            assert results == [expected(name)] * 3
        assert current() is None

    await asyncio.gather(*(request(f"s{i}") for i in range(60)))
    assert current() is None


def test_threads_see_it_only_when_carried():
    with ThreadPoolExecutor(1) as pool, serving(call("a")):
        assert pool.submit(seen).result() is None
        assert pool.submit(carry(seen)).result() == expected("a")
        assert pool.submit(seen).result() is None


def test_a_carried_function_runs_in_many_threads_at_once():
    barrier = threading.Barrier(4)

    def work():
        barrier.wait(5)
        return seen()

    with serving(call("a")):
        carried = carry(work)
    with ThreadPoolExecutor(4) as pool:
        assert [f.result() for f in [pool.submit(carried) for _ in range(4)]] == [expected("a")] * 4


def test_pool_threads_that_serve_in_turn_keep_nothing():
    def request(name):
        assert current() is None
        with serving(call(name)):
            return seen() == expected(name)

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(request, [f"s{i}" for i in range(200)]))
        assert all(found is None for found in pool.map(lambda _: current(), range(20)))


async def test_a_carried_coroutine_runs_in_another_loop():
    async def work():
        await asyncio.sleep(0)
        return seen()

    with serving(call("a")):
        carried = carry(work)
    assert await asyncio.to_thread(lambda: asyncio.run(carried())) == expected("a")
    assert current() is None


def test_outgoing_headers_outside_of_a_call_begin_a_trace_and_carry_nobody():
    headers = outgoing_headers()
    assert set(headers) == {"traceparent"}


def test_outgoing_headers_leave_the_user_out_when_told_to_or_over():
    with serving(call("a")):
        assert "Txn-Token" not in outgoing_headers(user=False)
        assert outgoing_headers()["Txn-Token"] == "t.a.s"
    from everyhop.sdk import User

    over = verified_call("list", user=User(subject="u", txn="1", expires_at=1), txn_token="t.o.k")
    with serving(over):
        assert "Txn-Token" not in outgoing_headers()


def test_nothing_shows_the_token():
    assert "t.a.s" not in repr(call("a"))
