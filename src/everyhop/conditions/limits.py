# SPDX-License-Identifier: Apache-2.0
"""Bounds of the condition language; each is a sentence of docs/reference/conditions.md."""

from __future__ import annotations

from typing import Final

MAX_TEXT: Final = 4096
"""Characters of a condition's text."""

MAX_NODES: Final = 200
"""Nodes of its syntax tree: names, literals, calls, list members."""

MAX_LOOPS: Final = 4
"""``exists``, ``all``, ``exists_one``, ``map`` and ``filter`` in one condition; none inside another."""

MAX_LOOPED: Final = 256
"""Elements of a list that is looped over; a longer one is an error of the evaluation."""

MAX_ELEMENTS: Final = 4096
"""Elements of a list or entries of a map that is handed to an evaluation."""

MAX_STRING: Final = 65_536
"""Characters of a string that is handed to an evaluation."""

MAX_TOTAL: Final = 1_048_576
"""Characters of all strings of one list or map that is handed to an evaluation."""

MAX_PATTERN: Final = 256
"""Characters of a regular expression."""

MAX_PROBLEMS: Final = 10
"""Mistakes that one refusal reports."""

MAX_ERROR: Final = 200
"""Characters of the text of an evaluation's error."""
