# SPDX-License-Identifier: Apache-2.0
"""Adding an entry to a policy text without touching the rest of it."""

from __future__ import annotations

import pytest

from everyhop.core.errors import InputError
from everyhop.policy.edit import append_entry

RULE = "{from: a, to: b}"


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ("allow:\n- x\ndeny: y\n", "allow", "allow:\n- x\n- @\ndeny: y\n"),
        ("allow:\n  - x: 1\n    y: 2\n\n# next\ndeny: y\n", "allow", "allow:\n  - x: 1\n    y: 2\n  - @\n\n# next\ndeny: y\n"),
        ("allow:\n  - {x: 1} # why\n", "allow", "allow:\n  - {x: 1} # why\n  - @\n"),
        ("allow:\n  - {x: 1}", "allow", "allow:\n  - {x: 1}\n  - @\n"),
        ("allow: [{x: 1}, {y: 2}] # c\n", "allow", "allow: [{x: 1}, {y: 2}, @] # c\n"),
        ("allow: [\n  {x: 1}, # c\n  {y: 2},\n]\n", "allow", "allow: [\n  {x: 1}, # c\n  {y: 2}, @,\n]\n"),
        ("allow: []\n", "allow", "allow: [@]\n"),
        ("allow:\n  - reason: |\n      a\n      b\ndeny: y\n", "allow", "allow:\n  - reason: |\n      a\n      b\n  - @\ndeny: y\n"),
        ("allow:\n  - reason: a\n      b\ndeny: y\n", "allow", "allow:\n  - reason: a\n      b\n  - @\ndeny: y\n"),
        ("é: ü\nallow:\n  - 'ß'\n", "allow", "é: ü\nallow:\n  - 'ß'\n  - @\n"),
        ("\ufeffallow:\n  - x\n", "allow", "allow:\n  - x\n  - @\n"),
        ("version: 1\n", "allow", "version: 1\nallow:\n  - @\n"),
        ("version: 1\n...\n", "allow", "version: 1\nallow:\n  - @\n...\n"),
        ('{"version": 1}', "allow", '{"version": 1, allow: [@]}'),
        ("services:\n  b:\n    operations:\n      x: GET /\n  c: {}\n", "services.b.operations", "services:\n  b:\n    operations:\n      x: GET /\n      @\n  c: {}\n"),
        ("services:\n  b:\n    tcp: 1\n", "services.b.operations", "services:\n  b:\n    tcp: 1\n    operations:\n      @\n"),
        ("services:\n  b: {}\n", "services.b.operations", "services:\n  b: {operations: {@}}\n"),
        ("services: {b: {operations: {x: GET /}}}\n", "services.b.operations", "services: {b: {operations: {x: GET /, @}}}\n"),
    ],
)  # fmt: skip
def test_the_entry_comes_last_in_the_style_of_its_place(before, path, after):
    entry = RULE if path == "allow" else "y: GET /y"
    changed = append_entry(before.encode(), path.split("."), entry).decode()
    assert changed == after.replace("@", entry)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("version: 1\n", "services.b.operations", "services is not in this file"),
        ("services: {a: {}}\n", "services.b.operations", "services.b is not in this file"),
        ("- x\n", "allow", "the file is not a mapping"),
        ("services: [b]\n", "services.b.operations", "services is not a mapping"),
        ("allow: x\n", "allow", "neither a list nor a mapping"),
    ],
)
def test_places_that_are_not_there(text, path, message):
    with pytest.raises(InputError, match=message):
        append_entry(text.encode(), path.split("."), RULE)
