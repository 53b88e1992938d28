# SPDX-License-Identifier: Apache-2.0
"""Predicates as SQL with the same meaning on one dialect: three truth values, exact text, no value of another type.

Databases differ where it matters: which texts are equal, what ``LIKE`` ignores, what may stand in a column.  So each
comparison is written for the dialect at hand, and what cannot be written exactly raises and is never approximated here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from everyhop.conditions import Truth, ValueType, predicates as p
from everyhop.conditions.limits import MAX_STRING
from everyhop.integrations._missing import needs

with needs("sqlalchemy"):
    import sqlalchemy as sa
    from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from everyhop.integrations.sqlalchemy import Columns

    Sql = ColumnElement[Any]
    Test = ColumnElement[bool]

DIALECTS: Final = ("sqlite", "postgresql")
_MAX_DOUBLE: Final = sys.float_info.max
_EXACT: Final = 2**53
_EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 30, tzinfo=UTC)
_MOMENT: Final = (
    "-".join(("[0-9]" * 4, "[0-9]" * 2, "[0-9]" * 2)) + " " + ":".join(["[0-9]" * 2] * 3) + "." + "[0-9]" * 6
)
_PLACES: Final = {"start": "begins with", "end": "ends with", "anywhere": "contains"}


class InexactError(Exception):
    """A part of a predicate that this dialect or these columns cannot answer exactly."""


@dataclass(frozen=True, slots=True)
class Lowering:
    """Writes predicates over some columns for one dialect.  Raises InexactError."""

    columns: Columns
    dialect: str

    def lower(self, predicate: p.Predicate) -> Test:
        """Return the expression: true, false, or NULL for an error."""
        match predicate:
            case p.Fixed(truth=truth):
                return _UNKNOWN if truth is Truth.ERROR else sa.true() if truth is Truth.TRUE else sa.false()
            case p.And(parts=parts):
                return sa.and_(*map(self.lower, parts))
            case p.Or(parts=parts):
                return sa.or_(*map(self.lower, parts))
            case p.Not(part=part):
                return sa.not_(self.lower(part))
            case p.Choose(condition=condition, then=then, other=other):
                asked = self.lower(condition)
                return sa.case((asked, self.lower(then)), (sa.not_(asked), self.lower(other)), else_=_UNKNOWN)
            case p.Opaque(text=text):
                raise InexactError(f"{text} has no counterpart in SQL")
            case _:
                return self._simple(predicate)

    def over(self, predicate: p.Predicate, *, wanted: Truth = Truth.TRUE) -> Test:
        """Return an expression that is true at least wherever the predicate is ``wanted`` (TRUE or FALSE)."""
        is_true = wanted is Truth.TRUE
        try:
            exact = self.lower(predicate)
        except InexactError:
            match predicate:
                case p.Not(part=part):
                    return self.over(part, wanted=Truth.FALSE if is_true else Truth.TRUE)
                case p.And(parts=parts) | p.Or(parts=parts):
                    joined = sa.and_ if isinstance(predicate, p.And) is is_true else sa.or_
                    return joined(*(self.over(part, wanted=wanted) for part in parts))
                case _:
                    return sa.true()
        return exact if is_true else sa.not_(exact)

    def is_typed(self, attribute: p.Attribute) -> Test:
        """Return whether a column holds nothing, or a value of the attribute's declared type."""
        name = attribute.name.partition(".")[2]
        column = self.columns.columns.get(name)
        if column is None:
            if name in self.columns.read:
                raise InexactError(f"{attribute.name} is read from each row")
            return sa.true()
        self._check(attribute, column)
        wanted = (
            self._sqlite_type(attribute, column) if self.dialect == "sqlite" else _bounds(attribute, column)
        )
        return sa.true() if wanted is None else sa.or_(column.is_(None), wanted)

    # -- parts

    def _simple(self, predicate: p.Holds | p.Compare | p.In | p.Part) -> Test:
        match predicate:
            case p.Holds(attribute=attribute):
                return _apply("=", self._value(attribute), sa.literal(True, sa.Boolean()))
            case p.Compare(sign=sign, left=left, right=right):
                return self._compare(sign, left, right)
            case p.In(element=element, items=items):
                return self._in(element, items)
            case p.Part(attribute=attribute, place=place, text=text):
                return self._part(attribute, place, text)

    def _compare(self, sign: p.Sign, left: p.Operand, right: p.Operand) -> Test:
        first, second = self._exact(left), self._exact(right)
        exact = _apply({"==": "=", "!=": "<>"}.get(sign, sign), first, second)
        if sign == "==" and self.dialect == "postgresql" and self._is_text(left, right):
            # True wherever the exact one is, and the only one that an index of the column's own collation serves.
            return sa.and_(_apply("=", self._value(left), self._value(right)), exact)
        return exact

    def _in(self, element: p.Operand, items: tuple[p.Operand, ...]) -> Test:
        """An error where any value is not known, which SQL's own IN is not."""
        constants = [one for one in items if isinstance(one, p.Constant)]
        if items and len(constants) == len(items) and isinstance(element, p.Attribute):
            if self.dialect == "postgresql" and self._is_text(element):
                return sa.or_(*(self._compare("==", element, one) for one in items))
            return self._exact(element).in_([self._bind(one.value) for one in constants])
        known = [self._value(one) for one in (element, *items) if isinstance(one, p.Attribute)]
        found = sa.or_(sa.false(), *(self._compare("==", element, one) for one in items))
        return _known(known, found)

    def _part(self, attribute: p.Attribute, place: p.Place, text: str) -> Test:
        value = self._value(attribute)
        if not text:
            return _known([value], sa.true())
        if self.dialect == "sqlite":  # bytes: its own functions on text stop at a NUL, and LIKE ignores case
            raw: Sql = sa.cast(value, sa.LargeBinary())
            wanted: Sql = sa.literal(text.encode(), sa.LargeBinary())
            if place == "end":  # substr() of no bytes is NULL, and an empty text is not unknown
                at_end = _apply("=", sa.func.substr(raw, -len(text.encode())), wanted)
                return _known([value], sa.func.coalesce(at_end, sa.false()))
            at = sa.func.instr(raw, wanted)
            return _apply("=" if place == "start" else ">=", at, sa.literal(1, sa.Integer()))
        whole, wanted = self._exact(attribute), self._bind(text)
        if place == "start":
            return sa.func.starts_with(whole, wanted, type_=sa.Boolean())
        if place == "anywhere":
            return _apply(">", sa.func.strpos(whole, wanted), sa.literal(0, sa.Integer()))
        return _apply("=", sa.func.right(whole, len(text)), wanted)

    def _exact(self, operand: p.Operand) -> Sql:
        """Return a value so that comparing it is exact: text by its bytes."""
        value = self._value(operand)
        if not isinstance(operand, p.Attribute) or operand.type is not ValueType.STRING:
            return value
        if self.dialect == "sqlite":
            return sa.collate(value, "BINARY")
        return sa.collate(sa.cast(value, sa.Text()), "C")

    def _value(self, operand: p.Operand) -> Sql:
        if isinstance(operand, p.Constant):
            return self._bind(operand.value)
        name = operand.name.partition(".")[2]
        if name in self.columns.read:
            raise InexactError(f"{operand.name} is read from each row")
        if name not in self.columns.columns:
            raise InexactError(f"no column is named for {operand.name} (None says that it is not known)")
        column = self.columns.columns[name]
        default = None if operand.default is None else self._bind(operand.default)
        if column is None:
            return sa.cast(sa.null(), _TYPES[operand.type]) if default is None else default
        self._check(operand, column)
        return column if default is None else sa.func.coalesce(column, default)

    def _bind(self, value: object) -> Sql:
        match value:
            case bool():
                return sa.literal(value, sa.Boolean())
            case int():
                return sa.literal(value, sa.BigInteger())
            case float():
                return sa.literal(value, sa.Double())
            case str():
                if "\0" in value and self.dialect == "postgresql":
                    raise InexactError("a text with a NUL character cannot be sent to PostgreSQL")
                return sa.literal(value, sa.Text())
            case datetime() if self.columns.naive_is_utc:
                return sa.literal(value.astimezone(UTC).replace(tzinfo=None), sa.DateTime())
            case datetime():
                return sa.literal(value, sa.DateTime(timezone=True))
            case _:
                raise InexactError("a value has no counterpart in SQL")

    def _is_text(self, *operands: p.Operand) -> bool:
        return any(
            one.type is ValueType.STRING if isinstance(one, p.Attribute) else isinstance(one.value, str)
            for one in operands
        )

    # -- columns

    def _check(self, attribute: p.Attribute, column: Sql) -> None:
        """Refuse a column whose values are not what the application sees as the attribute's type."""
        kind, wanted = column.type, _KINDS.get(attribute.type)
        is_right = wanted is not None and isinstance(kind, wanted) and not isinstance(kind, TypeDecorator)
        is_odd = isinstance(kind, sa.Enum | sa.CHAR | sa.REAL) or getattr(kind, "asdecimal", False) is True
        if not is_right or is_odd or getattr(kind, "_variant_mapping", None):  # another type on some dialect
            raise InexactError(f"{attribute.name} is {attribute.type}, its column {kind!r}")
        if isinstance(kind, sa.DateTime):
            if self.dialect == "sqlite" and type(kind) not in {sa.DateTime, sa.DATETIME, sa.TIMESTAMP}:
                raise InexactError(f"{attribute.name}: the column stores moments in a form of its own")
            is_naive = self.dialect == "sqlite" or not kind.timezone
            if is_naive is not self.columns.naive_is_utc:
                what = (
                    "naive moments (say naive_is_utc if they are UTC)" if is_naive else "moments with a zone"
                )
                raise InexactError(f"{attribute.name}: the column holds {what}")

    def _sqlite_type(self, attribute: p.Attribute, column: Sql) -> Test:
        """A column of SQLite may hold anything, whatever its declared type is."""
        held = sa.func.typeof(column)
        raw = sa.type_coerce(column, sa.BigInteger())
        match attribute.type:
            case ValueType.STRING:
                # A text with a NUL is none for a condition; and length() would stop at it.
                nul = sa.func.instr(
                    sa.cast(column, sa.LargeBinary()), sa.literal_column("x'00'", sa.LargeBinary())
                )
                return sa.and_(held == "text", nul == 0, sa.func.length(column) <= MAX_STRING)
            case ValueType.BOOL:
                return sa.and_(held == "integer", raw.in_([0, 1]))
            case ValueType.INT:
                return held == "integer"
            case ValueType.DOUBLE:
                number: Sql = sa.type_coerce(column, sa.Double())
                real = sa.and_(held == "real", number.between(-_MAX_DOUBLE, _MAX_DOUBLE))
                return sa.or_(real, sa.and_(held == "integer", raw.between(-_EXACT, _EXACT)))
            case _:
                text = sa.type_coerce(column, sa.Text())
                return sa.and_(
                    held == "text",
                    text.op("GLOB")(_MOMENT),
                    column.between(_naive(_EARLIEST), _naive(_LATEST)),
                )


_UNKNOWN: Final = sa.cast(sa.null(), sa.Boolean())
_KINDS: Final[dict[ValueType, type[Any]]] = {
    ValueType.STRING: sa.String,
    ValueType.BOOL: sa.Boolean,
    ValueType.INT: sa.Integer,
    ValueType.DOUBLE: sa.Float,
    ValueType.TIMESTAMP: sa.DateTime,
}
_TYPES: Final[dict[ValueType, Any]] = {
    ValueType.STRING: sa.Text(),
    ValueType.BOOL: sa.Boolean(),
    ValueType.INT: sa.BigInteger(),
    ValueType.DOUBLE: sa.Double(),
    ValueType.TIMESTAMP: sa.DateTime(timezone=True),
}


def _bounds(attribute: p.Attribute, column: Sql) -> Test | None:
    """What PostgreSQL can hold beyond what a condition takes: long texts, NaN, infinities."""
    match attribute.type:
        case ValueType.STRING:
            is_short = (getattr(column.type, "length", None) or MAX_STRING + 1) <= MAX_STRING
            return None if is_short else sa.func.char_length(column) <= MAX_STRING
        case ValueType.DOUBLE:
            return column.between(-_MAX_DOUBLE, _MAX_DOUBLE)
        case ValueType.TIMESTAMP:
            is_aware = bool(getattr(column.type, "timezone", False))
            first, last = (_EARLIEST, _LATEST) if is_aware else (_naive(_EARLIEST), _naive(_LATEST))
            return column.between(first, last)
        case _:
            return None


def _apply(sign: str, left: Sql, right: Sql) -> Test:
    """Compare without what SQLAlchemy makes of ``== True`` and the like: NULL must stay NULL."""
    return left.op(sign, is_comparison=True, return_type=sa.Boolean())(right)


def _known(values: list[Sql], found: Test) -> Test:
    """Return an expression, NULL where one of the values is."""
    if not values:
        return found
    return sa.case((sa.or_(*(value.is_(None) for value in values)), _UNKNOWN), else_=found)


def _naive(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None)
