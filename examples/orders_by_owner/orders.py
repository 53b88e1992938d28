# SPDX-License-Identifier: Apache-2.0
"""Orders that not everybody sees: one endpoint lists, one reads, and the policy says who sees which.

There is no ``if user.is_admin`` here: both endpoints ask the rules of ``everyhop.yaml``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from everyhop.integrations.fastapi import protect
from everyhop.integrations.sqlalchemy import Columns, filter_for
from everyhop.sdk import authorize, visible

engine = create_engine(os.environ.get("ORDERS_DATABASE", "sqlite:///orders.db"))
app = FastAPI()


class Base(DeclarativeBase):
    """The tables."""


class Order(Base):
    """An order; what is NULL is not known, which opens nothing."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str | None] = mapped_column(String(100), index=True)
    department: Mapped[str | None] = mapped_column(String(100))
    confidential: Mapped[bool | None]
    total: Mapped[int]


COLUMNS = Columns({"owner": Order.owner, "department": Order.department, "confidential": Order.confidential})


def database() -> Iterator[Session]:
    """Give one session to each request."""
    with Session(engine) as session:
        yield session


Database = Annotated[Session, Depends(database)]


@app.get("/orders")
def list_orders(session: Database) -> list[dict[str, Any]]:
    """Return the orders that the user may see; the database chooses them."""
    dialect = session.get_bind().dialect
    statement = filter_for(select(Order), visible(type="order"), COLUMNS, dialect=dialect)
    return [{"id": order.id, "total": order.total} for order in session.scalars(statement.order_by(Order.id))]


@app.get("/orders/{number}")
def read_order(number: int, session: Database) -> dict[str, Any]:
    """Return one order, once the rules have seen whose it is."""
    order = session.get(Order, number)
    if order is None:
        raise HTTPException(404)
    attributes = {"owner": order.owner, "department": order.department, "confidential": order.confidential}
    authorize(type="order", resource={"id": order.id, **attributes})
    return {"id": order.id, "total": order.total, "owner": order.owner}


protect(app)
