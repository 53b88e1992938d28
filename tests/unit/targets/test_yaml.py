# SPDX-License-Identifier: Apache-2.0
"""The YAML that we write reads back as what was meant, by two readers' rules."""

import pytest
import yaml
from hypothesis import given, strategies as st

from everyhop.targets.yaml import Document, Noted, write_yaml

TEXTS = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=20) | st.sampled_from(
    [
        "y",
        "n",
        "on",
        "No",
        "null",
        "~",
        "0x1f",
        "1e3",
        "01",
        "12:30:45",
        "2026-01-01",
        "a: b",
        "- a",
        "#x",
        "{a}",
        "*",
        "&a",
        "!t",
        "<<",
        "=",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def plain(value):
    if isinstance(value, Noted):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


@given(st.lists(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4), min_size=1, max_size=3))
def test_what_is_written_is_read_again(documents):
    written = write_yaml(Document(one, ("a note",)) for one in documents)
    assert list(yaml.safe_load_all(written)) == documents


@given(VALUES, TEXTS)
def test_a_note_changes_nothing_but_stands_there(value, note):
    document = {"a": [Noted(value, note), Noted({"b": Noted(value, note)}, note)], "c": Noted(value, note)}
    written = write_yaml([Document(document, (note,))], [note])
    assert list(yaml.safe_load_all(written)) == [plain(document)]
    assert written.count(b"#") >= 5


def test_it_looks_as_a_person_would_write_it():
    document = {
        "spec": {"rules": [Noted({"methods": ["GET"], "paths": []}, "allow[0] at everyhop.yaml:3:5")]}
    }
    assert write_yaml([Document(document)]).decode() == (
        "---\nspec:\n  rules:\n    # allow[0] at everyhop.yaml:3:5\n    - methods:\n        - GET\n      paths: []\n"
    )


@pytest.mark.parametrize("note", ["a\nb: c", "a\r\nb", "a\x85b", "a\u2028b"])
def test_a_note_cannot_end_its_line(note):
    assert len(write_yaml([Document({"a": 1}, (note,))]).decode().splitlines()) == 3


def test_a_text_of_several_lines_is_written_to_be_read():
    text = "server {\n  a = 1\n\n}\n"
    written = write_yaml([Document({"data": {"conf": text, "last": "x"}})])
    assert b"  conf: |\n    server {\n      a = 1\n\n    }\n  last: x\n" in written
    assert yaml.safe_load(written) == {"data": {"conf": text, "last": "x"}}


@pytest.mark.parametrize(
    "text",
    ["a\nb", "a\n\n", " a\nb\n", "\na\n", "a\tb\nc\n", "a\né\n", "a\n b \n", "a\r\nb\n", "# a\nb\n", "a\n"],
)
def test_texts_of_several_lines_come_back_as_they_were(text):
    written = write_yaml([Document({"a": {"b": text, "c": [text]}})])
    assert yaml.safe_load(written) == {"a": {"b": text, "c": [text]}}
