# SPDX-License-Identifier: Apache-2.0
"""examples/orders_by_owner and docs/guides/filtering.md do what they say."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, pool, select
from sqlalchemy.orm import Session

from everyhop.authz import run_tests
from everyhop.integrations import fastapi as for_fastapi
from everyhop.policy import parse_policy
from everyhop.sdk import Guard, Peer, Request, ServiceContext, serving, visible
from everyhop.testing import Issuer, context_document

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples/orders_by_owner"
POLICY = (EXAMPLE / "everyhop.yaml").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs/guides/filtering.md").read_text(encoding="utf-8")
PEER = Peer(spiffe_id="spiffe://shop.example/service/storefront")
INSIDE, OUTSIDE = "10.1.2.3", "192.0.2.7"

ORDERS = [  # id, owner, department, confidential
    (1, "ann", "sales", False),
    (2, "ann", "sales", True),
    (3, "bob", "sales", False),
    (4, "bob", "legal", True),
    (5, None, "sales", False),
    (6, "ann", None, None),
    (7, "Ann", "Sales", False),
]
# user, roles, address, the orders that they see
SEEN = [
    ("ann", ["customer"], INSIDE, [1, 2, 6]),
    ("ann", ["customer"], OUTSIDE, [1]),
    ("bob", ["customer"], INSIDE, [3, 4]),
    ("root", ["admin"], INSIDE, [1, 2, 3, 4, 5, 6, 7]),
    ("root", ["admin"], OUTSIDE, [1, 3, 5, 7]),
    ("hana", ["customer"], INSIDE, [1, 2, 3, 5]),
    ("hana", ["customer"], OUTSIDE, [1, 3, 5]),
    ("eve", ["customer"], INSIDE, []),
]


class World:
    def __init__(self, monkeypatch):
        self.issuer = Issuer()
        context = ServiceContext.parse(context_document(POLICY, "orders", self.issuer))
        self.decided = []
        self.guard = Guard(context, decisions=self.decided.append)
        real = for_fastapi.protect
        monkeypatch.setattr(
            for_fastapi, "protect", lambda app: real(app, self.guard, sidecar_socket="/nowhere")
        )
        monkeypatch.setenv("ORDERS_DATABASE", "sqlite://")
        spec = importlib.util.spec_from_file_location("orders_by_owner", EXAMPLE / "orders.py")
        self.module = module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # FastAPI reads annotations there
        spec.loader.exec_module(module)
        module.engine = create_engine(
            "sqlite://", poolclass=pool.StaticPool, connect_args={"check_same_thread": False}
        )
        module.Base.metadata.create_all(module.engine)
        with Session(module.engine) as session:
            for number, owner, department, confidential in ORDERS:
                session.add(
                    module.Order(
                        id=number, owner=owner, department=department, confidential=confidential, total=1
                    )
                )
            session.commit()

    async def get(self, path, user, roles, address):
        async def app(scope, receive, send):
            await self.module.app({**scope, "extensions": {"everyhop.peer": PEER}}, receive, send)

        transport = httpx.ASGITransport(app=app, client=(address, 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://orders") as client:
            token = {} if user is None else {"txn-token": self.issuer.transaction(user, roles=roles)}
            return await client.get(path, headers=token)


@pytest.fixture
def world(monkeypatch):
    world = World(monkeypatch)
    yield world
    world.module.engine.dispose()


@pytest.mark.parametrize(
    ("user", "roles", "address"), [(None, [], INSIDE), ("ann", [], INSIDE), ("ann", ["x"], INSIDE)]
)
async def test_whoever_could_see_nothing_does_not_come_in(world, user, roles, address):
    for path in ("/orders", "/orders/1"):
        answer = await world.get(path, user, roles, address)
        assert answer.status_code in {401, 403}


@pytest.mark.parametrize(("user", "roles", "address", "seen"), SEEN)
async def test_list_and_read_agree(world, user, roles, address, seen):
    listed = await world.get("/orders", user, roles, address)
    assert [order["id"] for order in listed.json()] == seen
    for number, *_ in ORDERS:
        read = await world.get(f"/orders/{number}", user, roles, address)
        assert read.status_code == (200 if number in seen else 403), number
        if number not in seen:
            assert read.json()["code"] == "ACCESS_DENIED"
            assert read.json()["decision"] == world.decided[-1].decision_id
    assert (await world.get("/orders/99", user, roles, address)).status_code == 404


async def test_an_endpoint_that_forgets_is_answered_with_500(world):
    world.module.authorize = lambda **_: None
    answer = await world.get("/orders/4", "ann", ["customer"], INSIDE)
    assert (answer.status_code, answer.json()["code"]) == (500, "AUTHORIZATION_MISSING")
    assert "bob" not in answer.text


def test_the_policys_own_tests_pass():
    results = run_tests(parse_policy({"everyhop.yaml": POLICY.encode()}))
    assert len(results) == 5
    assert all(result.is_passed for result in results)


def test_the_guide_shows_the_example():
    source = (EXAMPLE / "orders.py").read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w+)\n(.*?)```", GUIDE, re.DOTALL)
    shown = [text for language, text in blocks if language == "python"]
    assert len(shown) == 4
    assert all(text in source for text in shown[:3])
    (policy,) = [text for language, text in blocks if language == "yaml"]
    for line in policy.splitlines():
        assert line in POLICY


def test_the_guides_pages(world):
    code = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)[3]
    token = world.issuer.transaction("root", roles=["admin"])
    headers = [(b"txn-token", token.encode())]
    request = Request(method="GET", raw_path=b"/orders", headers=headers, peer=PEER, source_ip=INSIDE)
    pages = []
    with Session(world.module.engine) as session, serving(world.guard.check(request)):
        names = {
            "session": session,
            "select": select,
            "Order": world.module.Order,
            "COLUMNS": world.module.COLUMNS,
            "found": visible(type="order"),
        }
        exec(compile(code, "guide", "exec"), names)
        pages = names["first"]
    assert [order.id for order in pages.items] == [7]
    assert pages.is_last
