# SPDX-License-Identifier: Apache-2.0
"""Adding an entry to a policy text without touching the rest of it."""

from __future__ import annotations

import subprocess

import pytest

from everyhop.core.errors import InputError
from everyhop.policy.edit import append_entry, entry_at, remove_entry, replace_value
from everyhop.policy.patch import unified_diff

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


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ("roles:\n  a: [x.y]\n", "roles.a", "roles:\n  a: [x.y, @]\n"),
        ("roles:\n  a:\n    - x.y\n", "roles.a", "roles:\n  a:\n    - x.y\n    - @\n"),
        ("roles:\n  a: {includes: [b]}\n", "roles.a.grants", "roles:\n  a: {includes: [b], grants: [@]}\n"),
        ("roles:\n  a:\n    groups: [G]\n", "roles.a.grants", "roles:\n  a:\n    groups: [G]\n    grants:\n      - @\n"),
        ("roles:\n  a:\n    grants: [x.y]\n", "roles.a.grants", "roles:\n  a:\n    grants: [x.y, @]\n"),
    ],
)  # fmt: skip
def test_a_grant_is_added_to_a_role_in_both_forms(before, path, after):
    changed = append_entry(before.encode(), path.split("."), "o.new").decode()
    assert changed == after.replace("@", "o.new")


@pytest.mark.parametrize(
    ("before", "place", "after"),
    [
        ("allow:\n- x\n- y\nd: e\n", ("allow", 0), "allow:\n- y\nd: e\n"),
        ("allow:\n- x\n# of y\n- y # z\nd: e\n", ("allow", 1), "allow:\n- x\n# of y\nd: e\n"),
        ("allow:\n  - a: 1\n    b: 2\n\n  # next\n  - c: 3\n", ("allow", 0), "allow:\n\n  # next\n  - c: 3\n"),
        ("allow:\n  -\n    a: 1\n  - c: 3", ("allow", 0), "allow:\n  - c: 3"),
        ("allow:\n  - a: 1\n  - c: 3", ("allow", 1), "allow:\n  - a: 1\n"),
        ("allow:\n  - r: |\n      t\n      u\n  - c: 3\n", ("allow", 0), "allow:\n  - c: 3\n"),
        ("allow: [{x: 1}, {y: 2}, z]\n", ("allow", 0), "allow: [{y: 2}, z]\n"),
        ("allow: [{x: 1}, {y: 2}, z]\n", ("allow", 1), "allow: [{x: 1}, z]\n"),
        ("allow: [{x: 1}, {y: 2}, z ]\n", ("allow", 2), "allow: [{x: 1}, {y: 2} ]\n"),
        ("allow: [\n  {x: 1}, # c\n  # d\n  {y: 2},\n]\n", ("allow", 0), "allow: [\n  # d\n  {y: 2},\n]\n"),
        ("allow: [\n  {x: 1}, # c\n  {y: 2}, # d\n]\n", ("allow", 1), "allow: [\n  {x: 1}, # c\n]\n"),
        ("allow: [\n  {x: 1} # c\n  , y]\n", ("allow", 0), "allow: [\n  y]\n"),
        ("v: 1\nallow:\n  - x\nd: e\n", ("allow", 0), "v: 1\nd: e\n"),
        ("v: 1\nallow: [x] # why\nd: e\n", ("allow", 0), "v: 1\nd: e\n"),
        ("{v: 1, allow: [x], d: e}", ("allow", 0), "{v: 1, d: e}"),
        ("allow:\n  - {o: [a, b], f: g}\n", ("allow", 0, "o", 1), "allow:\n  - {o: [a], f: g}\n"),
        ("allow:\n  - f: g\n    o:\n      - a\n      - b\n", ("allow", 0, "o", 0), "allow:\n  - f: g\n    o:\n      - b\n"),
        ("\ufeffv: 1\nallow: [x, y]\n", ("allow", 0), "\ufeffv: 1\nallow: [y]\n"),
        ("é: ü\nallow: ['ß', \U0001f600, b]\n", ("allow", 1), "é: ü\nallow: ['ß', b]\n"),
        ("v: 1\r\nallow:\r\n- x\r\n- y\r\n", ("allow", 0), "v: 1\r\nallow:\r\n- y\r\n"),
    ],
)  # fmt: skip
def test_what_is_removed_takes_nothing_with_it(before, place, after):
    assert remove_entry(before.encode(), place).decode() == after


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("allow:\n- x\n", ("allow", 0), "the only entry"),
        ("v: 1\nallow: [x]\n", ("allow", 1), r"allow\.1 is not in this file"),
        ("v: 1\nallow: [x]\n", ("deny", 0), "deny is not in this file"),
        ("v: 1\nallow: [x, y]\n", ("allow", "x"), "not in this file"),
        ("v: 1\nallow: x\n", ("allow", 0), "not in this file"),
        ("a:\n  - - x\n    - y\n", ("a", 0, 0), "shares its line"),
        ("a:\n  - # why\n    x: 1\n  - y\n", ("a", 0), "comment between"),
    ],
)
def test_what_cannot_be_removed(text, place, message):
    with pytest.raises(InputError, match=message):
        remove_entry(text.encode(), place)


@pytest.mark.parametrize(
    ("before", "place", "after"),
    [
        ("allow:\n  - {o: all, f: g} # c\n", ("allow", 0, "o"), "allow:\n  - {o: @, f: g} # c\n"),
        ("allow:\n  - o: all   # c\n    f: g\n", ("allow", 0, "o"), "allow:\n  - o: @   # c\n    f: g\n"),
        ("allow:\n  - o: 'all'\n", ("allow", 0, "o"), "allow:\n  - o: @\n"),
        ("\ufeffallow: [{o: all}]", ("allow", 0, "o"), "\ufeffallow: [{o: @}]"),
    ],
)
def test_a_value_is_replaced_alone(before, place, after):
    assert replace_value(before.encode(), place, "[a, b]").decode() == after.replace("@", "[a, b]")


@pytest.mark.parametrize("text", ["allow: [{o: [a]}]\n", "allow: [{f: a}]\n", "allow:\n- o: |\n    all\n"])
def test_only_a_value_on_one_line_is_replaced(text):
    with pytest.raises(InputError):
        replace_value(text.encode(), ("allow", 0, "o"), "[a]")


def test_entries_are_found_where_the_parser_saw_them():
    text = b"allow:\n  - {x: 1}\n  - y: 2\n    z: 3\n"
    assert [entry_at(text, "allow", *at) for at in ((2, 5), (3, 5))] == [0, 1]
    for at in ((2, 3), (4, 5), (1, 1)):
        with pytest.raises(InputError):
            entry_at(text, "allow", *at)


def test_a_diff_is_what_patch_takes(tmp_path):
    before = {"a.yaml": b"x: 1\ny: 2", "b.yaml": b"z\n"}
    after = {"a.yaml": b"x: 1\ny: 3\nz: \xc3\xa9", "b.yaml": b"z\n"}
    assert unified_diff(before, before) == ""
    text = unified_diff(before, after)
    assert text.startswith("--- a/a.yaml\n+++ b/a.yaml\n")
    assert "b.yaml\n" not in text.replace("+++ b/a.yaml\n", "")
    (tmp_path / "a.yaml").write_bytes(before["a.yaml"])
    subprocess.run(["patch", "-p1"], cwd=tmp_path, input=text.encode(), check=True, capture_output=True)
    assert (tmp_path / "a.yaml").read_bytes() == after["a.yaml"]
