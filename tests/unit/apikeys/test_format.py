# SPDX-License-Identifier: Apache-2.0
"""The text of a key: what is refused before anybody is asked, and what scanners find."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from tests.support.identity import TestEntropy

from everyhop.apikeys.format import (
    DETECTION_REGEX,
    MAX_KEY_CHARACTERS,
    checksum_of,
    make_key,
    parse_key,
)
from everyhop.core.errors import InputError

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "tokens-issuing.md"
BODY = "eh_live_key_AbCd1234_" + "s3cretS3cretS3cretS3cretS3cret12"
GOOD = f"{BODY}_{checksum_of(BODY)}"


def with_checksum(body):
    return f"{body}_{checksum_of(body)}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "eh",
        BODY,
        GOOD + " ",
        " " + GOOD,
        GOOD + "\n",
        GOOD.upper(),
        GOOD.replace("eh_", "sk_", 1),
        GOOD[:-1],
        GOOD + "0",
        GOOD[:-6] + "000000",
        GOOD.replace("AbCd", "AbCe"),
        GOOD.replace("s3cret", "s3creT", 1),
        GOOD.replace("live", "Live"),
        with_checksum(BODY.replace("live", "")),
        with_checksum(BODY.replace("live", "l" * 17)),
        with_checksum(BODY.replace("key", "k-y")),
        with_checksum(BODY[:-1]),
        with_checksum(BODY + "x" * 33),
        with_checksum(BODY.replace("AbCd1234", "AbCd123")),
        with_checksum(BODY.replace("AbCd1234", "AbCd_234")),
        GOOD.replace("1", "\N{ARABIC-INDIC DIGIT ONE}"),
        GOOD.replace("_", "-"),
        "x" * (MAX_KEY_CHARACTERS + 1),
        "_" * 1_000_000,
    ],
)
def test_refused(text):
    with pytest.raises(InputError) as caught:
        parse_key(text)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("word", ["", "Live", "l ve", "x" * 17, "é", "a_b"])
def test_words_that_do_not_fit(word):
    with pytest.raises(InputError):
        make_key(word, "key", TestEntropy())
    with pytest.raises(InputError):
        make_key("live", word, TestEntropy())


def test_a_good_one():
    parsed = parse_key(GOOD)
    assert (parsed.environment, parsed.kind, parsed.lookup) == ("live", "key", "AbCd1234")
    assert parsed.secret.reveal().decode() == GOOD
    assert "s3cret" not in repr(parsed)


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=16))
def test_every_key_that_is_made_parses_and_is_found(word):
    made = make_key(word, word, TestEntropy())
    text = made.secret.reveal().decode()
    assert parse_key(text).lookup == made.lookup
    assert re.search(DETECTION_REGEX, f'KEY="{text}"').group() == text
    assert len(text) <= MAX_KEY_CHARACTERS


@given(st.data())
def test_one_changed_character_is_noticed(data):
    place = data.draw(st.integers(len("eh_live_key_"), len(BODY) - 1))
    character = data.draw(st.characters(codec="ascii", categories=["L", "N"]))
    changed = BODY[:place] + character + BODY[place + 1 :] + GOOD[len(BODY) :]
    if changed != GOOD:
        with pytest.raises(InputError):
            parse_key(changed)


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text):
    with pytest.raises(InputError):
        parse_key(text)


def test_characters_are_equally_likely():
    counts = dict.fromkeys("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", 0)
    for _ in range(400):
        for character in make_key("live", "key", TestEntropy()).secret.reveal().decode().split("_")[4]:
            counts[character] += 1
    expected = 400 * 32 / 62
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_squared < 130  # 61 degrees of freedom: one in a million by chance


def test_the_published_regex_is_this_one():
    assert DETECTION_REGEX in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text", ["eh_live_key", "eh_live_key_short_short_123456", "the_live_key_" + "x" * 50]
)
def test_what_scanners_pass_over(text):
    assert re.search(DETECTION_REGEX, text) is None
