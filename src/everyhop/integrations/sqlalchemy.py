# SPDX-License-Identifier: Apache-2.0
"""SQLAlchemy: the rows that a call may see, chosen by the database.

    COLUMNS = Columns({"id": Order.id, "owner": Order.owner, "status": Order.status})
    statement = filter_for(select(Order), visible(resource_type="order"), COLUMNS, dialect=session.get_bind().dialect)

The expression is exact: it is true for a row exactly when the engine allows the resource with the row's values; NULL
is an attribute that is not known.  What SQL cannot answer exactly raises :class:`NotExpressibleError`, naming rule and
clause; :func:`page` and :func:`rows` answer it in two steps: the database gives a superset, and each row of it is
checked.  Nothing is cut off silently.  SQLite and PostgreSQL are written exactly, others go the two-step way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from everyhop.authz.filtering import ID, Clause, Filter
from everyhop.conditions import Truth, ValueType, predicates as p
from everyhop.core.errors import InputError
from everyhop.integrations._missing import needs
from everyhop.integrations._sql import DIALECTS, InexactError, Lowering
from everyhop.policy.facts import Resource, Value

with needs("sqlalchemy"):
    import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement, Connection, Dialect, Select
    from sqlalchemy.orm import InstrumentedAttribute, Session

    Column = ColumnElement[Any] | InstrumentedAttribute[Any]

__all__ = ["Columns", "NotExpressibleError", "Page", "filter_for", "page", "rows", "superset", "where"]

S = TypeVar("S", bound="Select[Any]")

CHUNK: Final = 200
_LABEL: Final = "everyhop_"


class NotExpressibleError(InputError):
    """A filter that this database cannot answer exactly; the text names each clause and why.

    Use :func:`page` or :func:`rows`, which check each row.
    """

    code: ClassVar[str] = "FILTER_NOT_EXPRESSIBLE"


@dataclass(frozen=True, kw_only=False)
class Columns:
    """Where the attributes of a resource are: ``columns`` by the attribute's name, ``id`` among them.

    None for a column says that the application does not know the attribute, which is an error to a condition that
    reads it.  ``read`` holds functions that give an attribute from one row (an entity, or a row of several elements),
    for what is in no column, such as a list of tags.  ``naive_is_utc`` says that moments are stored without a zone and
    are UTC.
    """

    columns: Mapping[str, Any]
    read: Mapping[str, Callable[[Any], Value | None]] = field(default_factory=lambda: MappingProxyType({}))
    naive_is_utc: bool = False

    def __post_init__(self) -> None:
        """Keep copies; refuse an attribute that is given twice."""
        if both := self.columns.keys() & self.read.keys():
            raise InputError(f"{min(both)} is both a column and read from rows")
        found = {
            name: None
            if column is None
            else sa.inspection.inspect(column).__clause_element__()
            if hasattr(column, "__clause_element__")
            else column
            for name, column in self.columns.items()
        }
        object.__setattr__(self, "columns", MappingProxyType(found))
        object.__setattr__(self, "read", MappingProxyType(dict(self.read)))


def where(found: Filter, columns: Columns, *, dialect: Dialect) -> ColumnElement[bool]:
    """Return the expression that is true for exactly the rows that are allowed.

    It is NULL or false for others, so do not negate it.  Raises NotExpressibleError.
    """
    problems = [f"dialect {dialect.name}: comparisons are only known exactly on {', '.join(DIALECTS)}"]
    if dialect.name in DIALECTS:
        problems = []
        lowering = Lowering(columns, dialect.name)
        try:
            expression = _of(found, lambda one: _exact(one, lowering, problems), lowering)
        except InexactError as error:
            problems.append(f"what the directory knows: {error}")
        else:
            if not problems:
                return expression
    raise NotExpressibleError("; ".join(dict.fromkeys(problems)), hint="page() and rows() check each row")


def superset(found: Filter, columns: Columns, *, dialect: Dialect) -> ColumnElement[bool]:
    """Return an expression that is true at least for the rows that are allowed; each row is yet to be checked."""
    if dialect.name not in DIALECTS:
        return sa.true()
    lowering = Lowering(columns, dialect.name)
    try:
        return _of(found, lambda one: _over(one, lowering), lowering)
    except InexactError:
        return sa.true()


def filter_for(statement: S, found: Filter, columns: Columns, *, dialect: Dialect) -> S:
    """Return the statement with :func:`where`.  Raises NotExpressibleError."""
    return statement.where(where(found, columns, dialect=dialect))


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some of the rows.  ``cursor`` is what to go on ``after``; None when there are no more.

    ``examined`` counts rows that were looked at; a page may be empty and not be the last one.
    """

    items: tuple[Any, ...]
    cursor: Any
    examined: int

    @property
    def is_last(self) -> bool:
        """Tell whether everything has been given."""
        return self.cursor is None


def page(
    session: Session | Connection,
    statement: Select[Any],
    found: Filter,
    columns: Columns,
    *,
    key: Column,
    after: Any = None,
    limit: int = 100,
    examine: int = 1000,
) -> Page:
    """Return the next rows that are allowed, in the order of ``key``, which is unique and never NULL.

    It ends with ``limit`` rows, or after ``examine`` rows were looked at, or where there are no more, and says which:
    go on after ``cursor`` until that is None.  Where SQL is exact every row that it gives is one; else each is checked.
    The statement has no limit of its own and its order is replaced.  Raises InputError for one that has a limit.
    """
    if limit < 1 or examine < 1:
        raise InputError("a page has at least one row")
    if statement._has_row_limiting_clause:  # noqa: SLF001  # there is no public way to ask, and it would cut rows off
        raise InputError("the statement of a page has no limit of its own")
    dialect = session.get_bind().dialect if hasattr(session, "get_bind") else session.dialect
    try:
        expression, is_exact = where(found, columns, dialect=dialect), True
    except NotExpressibleError:
        expression, is_exact = superset(found, columns, dialect=dialect), False
    width = len(statement.column_descriptions)
    extra = {name: column for name, column in columns.columns.items() if column is not None}
    asked = statement.where(expression).order_by(None).order_by(key)
    asked = asked.add_columns(
        sa.type_coerce(key, _own_type(key)).label(f"{_LABEL}key"),
        *(column.label(_LABEL + "of_" + name) for name, column in extra.items()),
    )
    items: list[Any] = []
    examined = 0
    while True:
        chunk = min(CHUNK, examine - examined)
        some = asked if after is None else asked.where(key > after)
        got = session.execute(some.limit(chunk)).all()
        for row in got:
            after = row[width]
            examined += 1
            own = row[0] if width == 1 else tuple(row[:width])
            if is_exact or found.allows(_resource(found, columns, tuple(extra), own, row[width + 1 :])):
                items.append(own)
                if len(items) == limit:
                    return Page(items=tuple(items), cursor=after, examined=examined)
        if len(got) < chunk:
            return Page(items=tuple(items), cursor=None, examined=examined)
        if examined >= examine:
            return Page(items=tuple(items), cursor=after, examined=examined)


def rows(
    session: Session | Connection,
    statement: Select[Any],
    found: Filter,
    columns: Columns,
    *,
    key: Column,
) -> Iterator[Any]:
    """Yield every row that is allowed, page after page; arguments as for :func:`page`."""
    after = None
    while True:
        got = page(session, statement, found, columns, key=key, after=after)
        yield from got.items
        if got.is_last:
            return
        after = got.cursor


def _own_type(key: Column) -> Any:
    return key.type


def _resource(found: Filter, columns: Columns, names: tuple[str, ...], own: Any, values: Any) -> Resource:
    """Return the resource of a row; a value that no attribute can have stays what it is, and denies."""
    held = {name: _seen(value, columns) for name, value in zip(names, values, strict=True)}
    held |= {name: read(own) for name, read in columns.read.items()}
    identifier = held.pop("id", None)
    attributes = {name: value for name, value in held.items() if value is not None}
    return Resource(type=found.type, id=identifier, attributes=attributes)


def _seen(value: Any, columns: Columns) -> Any:
    if isinstance(value, datetime) and value.tzinfo is None and columns.naive_is_utc:
        return value.replace(tzinfo=UTC)
    return value


def _of(
    found: Filter,
    lower: Callable[[Filter], ColumnElement[bool]],
    lowering: Lowering,
) -> ColumnElement[bool]:
    """Return the expression of a filter, with those of the resources that the directory knows."""
    if not found.known:
        return lower(found)
    identifier = p.Attribute(ID, ValueType.STRING)
    parts = []
    for name, one in found.known.items():
        parts.append(sa.and_(lowering.lower(p.Compare("==", identifier, p.Constant(name))), lower(one)))
    names = tuple(map(p.Constant, found.known))
    column = lowering.columns.columns.get("id")
    is_none = sa.true() if column is None else column.is_(None)
    others = sa.or_(is_none, sa.not_(lowering.lower(p.In(identifier, names))))
    return sa.or_(*parts, sa.and_(others, lower(found)))


def _exact(found: Filter, lowering: Lowering, problems: list[str]) -> ColumnElement[bool]:
    def one(clause: Clause, *, is_deny: bool) -> ColumnElement[bool]:
        try:
            expression = lowering.lower(clause.predicate)
            typed = [lowering.is_typed(attribute) for attribute in clause.reads.values()]
        except InexactError as error:
            problems.append(f"{clause.rule} ({clause.text}): {error}")
            return sa.false()
        return sa.and_(*typed, sa.not_(expression) if is_deny else expression)

    allow = [one(clause, is_deny=False) for clause in found.allow]
    deny = [one(clause, is_deny=True) for clause in found.deny]
    return sa.and_(sa.or_(sa.false(), *allow), *deny)


def _over(found: Filter, lowering: Lowering) -> ColumnElement[bool]:
    allow = [lowering.over(clause.predicate) for clause in found.allow]
    deny = [lowering.over(clause.predicate, wanted=Truth.FALSE) for clause in found.deny]
    return sa.and_(sa.or_(sa.false(), *allow), *deny)
