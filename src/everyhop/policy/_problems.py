# SPDX-License-Identifier: Apache-2.0
"""Collect every mistake of a policy instead of stopping at the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.core.errors import PolicyError
from everyhop.core.names import nearest
from everyhop.core.problems import Problem, Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_PROBLEMS: Final = 200  # more help nobody, and bound the work that hostile text can cause
_MAX_GUESSES: Final = 40  # a guess compares with every known name
_MAX_GUESSED_LENGTH: Final = 80


class Problems:
    """The mistakes found so far."""

    __slots__ = ("_found", "_guesses")

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self._guesses = 0

    def add(self, code: str, span: Span, message: str, suggestion: str | None = None) -> None:
        """Note one mistake; beyond :data:`MAX_PROBLEMS` the rest is dropped."""
        if len(self._found) < MAX_PROBLEMS:
            self._found.append(Problem(code=code, span=span, message=message, suggestion=suggestion))

    def guess(self, wrong: str, known: Iterable[str]) -> str | None:
        """Return "did you mean 'x'?" for the nearest known name, or None when none is near."""
        self._guesses += 1
        if self._guesses > _MAX_GUESSES or len(wrong) > _MAX_GUESSED_LENGTH:
            return None
        near = nearest(wrong, known)
        return f"did you mean {near!r}?" if near else None

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing is wrong so far."""
        return not self._found

    @property
    def is_full(self) -> bool:
        """Tell whether more would be dropped."""
        return len(self._found) >= MAX_PROBLEMS

    def __iter__(self) -> Iterator[Problem]:
        """Yield the mistakes in the order in which they were found."""
        yield from self._found

    def raise_if_any(self) -> None:
        """Raise PolicyError with all mistakes in the order of the text, each once."""
        if self._found:
            raise PolicyError(sorted(dict.fromkeys(self._found), key=_place))


def _place(problem: Problem) -> tuple[str, int, int]:
    return problem.span.file, problem.span.line, problem.span.column
