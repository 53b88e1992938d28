# SPDX-License-Identifier: Apache-2.0
"""JSON without characters that a terminal obeys or a reader of lines takes for an end."""

import json

import pytest
from hypothesis import given, strategies as st

from everyhop.core.printable import escape_json, escape_json_line


@given(st.text(st.characters(codec="utf-8")))
def test_it_is_printable_and_says_the_same(text):
    line = escape_json(json.dumps({"a": text}, ensure_ascii=False))
    assert line.isprintable()
    assert json.loads(line) == {"a": text}
    as_bytes = escape_json_line(json.dumps({"a": text}, ensure_ascii=False).encode())
    assert as_bytes.decode().isprintable()
    assert json.loads(as_bytes) == {"a": text}


@pytest.mark.parametrize("hostile", ["\u202e", "\u2028", "\x7f", "\x85", "\u200b", "\ufeff", "\U000e0001"])
def test_what_turns_or_breaks_a_line_is_escaped(hostile):
    assert hostile not in escape_json(json.dumps(hostile, ensure_ascii=False))


def test_line_breaks_of_an_indented_document_stay():
    text = json.dumps({"a": "\u2028"}, ensure_ascii=False, indent=2)
    assert escape_json(text, keep="\n") == '{\n  "a": "\\u2028"\n}'
