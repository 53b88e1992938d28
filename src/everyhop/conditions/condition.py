# SPDX-License-Identifier: Apache-2.0
"""A compiled condition, and the one way to make it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.conditions import ast
from everyhop.conditions._cel import RefusedError, compile_text
from everyhop.conditions._explaining import Explainer
from everyhop.conditions._positions import problem_at, problems_at, problems_of_cel
from everyhop.conditions._profile import FUNCTIONS, mistakes
from everyhop.conditions._reading import UnreadableError, read
from everyhop.conditions._uses import dynamic_maps_of, keys_of, slots_of, variables_of
from everyhop.conditions._values import BadValueError
from everyhop.conditions.limits import MAX_TEXT
from everyhop.conditions.model import (
    Clause,
    ConditionError,
    ConditionProblem,
    Outcome,
    Truth,
    Vocabulary,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from everyhop.conditions._cel import Program


class Condition:
    """A condition that was checked against a vocabulary; immutable, and safe to use from many threads.

    ``text`` is what was written, ``tree`` its syntax tree, ``variables`` the dotted names that it reads.  ``keys`` holds
    the literal keys that it reads of each map, ``dynamic_maps`` the maps that it uses in another way as well (their
    size, a computed key), of which it needs every entry.  ``checked`` is the serialized ``cel.expr.CheckedExpr``.
    """

    __slots__ = (
        "_converters",
        "_explainer",
        "_program",
        "checked",
        "dynamic_maps",
        "keys",
        "text",
        "tree",
        "variables",
        "vocabulary",
    )

    def __init__(
        self, *, text: str, vocabulary: Vocabulary, tree: ast.Node, checked: bytes, program: Program
    ) -> None:
        """Take the checked parts; ``compile_condition`` makes them."""
        self.text = text
        self.vocabulary = vocabulary
        self.tree = tree
        self.checked = checked
        self.variables = variables_of(tree)
        self.keys = keys_of(tree)
        self.dynamic_maps = dynamic_maps_of(tree, vocabulary)
        self._program = program.naming(self.keys)
        self._converters = tuple((slot.name, slot.converter()) for slot in slots_of(tree, vocabulary))
        self._explainer = Explainer(tree, checked, vocabulary)

    def __repr__(self) -> str:
        return f"Condition({self.text!r})"

    def evaluate(self, values: Mapping[str, object]) -> Outcome:
        """Return what the condition says of these values (dotted name -> value).  Never raises.

        TRUE is given for CEL's boolean true and for nothing else.  A variable that is absent, or None, is an error where
        CEL comes to read it, which ``&&`` and ``||`` may absorb; a value that is there and is not of its type, or
        too large, is an error of the whole condition.  What the condition does not read is ignored.
        """
        try:
            data = self._data(values)
        except BadValueError as error:
            return Outcome(Truth.ERROR, str(error))
        except Exception:  # noqa: BLE001  # a mapping or value that breaks when it is read is a deny
            return Outcome(Truth.ERROR, "the values cannot be read")
        return self._program.run(data)

    def explain(self, values: Mapping[str, object]) -> tuple[Clause, ...]:
        """Return the condition's clauses, each evaluated alone: the parts between ``&&`` and ``||``.  Never raises.

        Brackets are looked into, and ``!`` as well: ``!(a || b)`` has the clauses ``!a`` and ``!b``.
        """
        data: dict[str, Any] = {}
        bad: dict[str, str] = {}
        for name, convert in self._converters:
            try:
                if (value := values.get(name)) is not None:
                    data[name] = convert(value)
            except BadValueError as error:
                bad[name] = str(error)
            except Exception:  # noqa: BLE001  # as in evaluate
                bad[name] = f"{name} cannot be read"
        return self._explainer.clauses(data, bad)

    def _data(self, values: Mapping[str, object]) -> dict[str, Any]:
        data = {}
        for name, convert in self._converters:
            if (value := values.get(name)) is not None:
                data[name] = convert(value)
        return data


def compile_condition(text: str, vocabulary: Vocabulary) -> Condition:
    """Return the condition; raises ConditionError with every mistake that was found.

    ``text`` is CEL in the profile of docs/reference/conditions.md, of at most 4096 characters.
    """
    if len(text) > MAX_TEXT:
        raise ConditionError([ConditionProblem(f"the condition is longer than {MAX_TEXT} characters", 1, 1)])
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConditionError([problem_at(error.start, "this is not valid Unicode", text)]) from None
    try:
        program, message, checked = compile_text(text, vocabulary)
    except RefusedError as error:
        found = problems_of_cel(error.errors, text, vocabulary.variables, FUNCTIONS)
        raise ConditionError(found) from None
    try:
        tree = read(message)
    except UnreadableError as error:
        raise ConditionError([problem_at(error.offset, error.message, text)]) from None
    if problems := problems_at(mistakes(tree, text, vocabulary), text):
        raise ConditionError(problems)
    return Condition(text=text, vocabulary=vocabulary, tree=tree, checked=checked, program=program)
