# SPDX-License-Identifier: Apache-2.0
"""Conditions: CEL behind one strict wrapper.

A condition is text in a small profile of CEL, checked against a vocabulary of typed names when it is read, and
evaluated over plain values.  Only a real true counts; everything that goes wrong is an error, and an error is never
true.  ``ast`` and ``analysis`` serve those who lower conditions to other engines or reason about them.
"""

from everyhop.conditions.condition import Condition, compile_condition
from everyhop.conditions.model import (
    Clause,
    ConditionError,
    ConditionProblem,
    Outcome,
    Truth,
    ValueType,
    Vocabulary,
)

__all__ = [
    "Clause",
    "Condition",
    "ConditionError",
    "ConditionProblem",
    "Outcome",
    "Truth",
    "ValueType",
    "Vocabulary",
    "compile_condition",
]
