# SPDX-License-Identifier: Apache-2.0
"""Signed notes: the example of the specification, and everything that is almost a note."""

import pytest

from everyhop.core.errors import InputError, ProofError
from everyhop.core.secret import Secret
from everyhop.tlog.encoding import decode_base64, decode_hash, decode_number, encode_base64
from everyhop.tlog.keys import SignerKey, VerifierKey
from everyhop.tlog.note import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    Note,
    Signature,
    parse_note,
    parse_signatures,
    sign_note,
)

# c2sp.org/signed-note, section "Example".
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)


def key(name="example.com/log", byte=1):
    return SignerKey(name, Secret(bytes([byte]) * 32))


LINE = sign_note("x\n", [key()]).signatures[0].line()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\n\n",
        b"text\n",
        b"text\n\n",
        f"text\n{LINE}".encode(),
        f"\n\ntext\n{LINE}".encode(),
        f"text\n\n{LINE}"[:-1].encode(),
        f"text\n\n{LINE}\n".encode(),
        f"text\n\n{LINE}x".encode(),
        f"text\n\n{LINE}x\n".encode(),
        f"text\r\n\n{LINE}".encode(),
        f"text\n\n{LINE[:-1]}\r\n".encode(),
        f"te\0xt\n\n{LINE}".encode(),
        f"te\txt\n\n{LINE}".encode(),
        f"text\n\n{LINE}".encode("utf-16"),
        b"te\xffxt\n\n" + LINE.encode(),
        b"te\xed\xa0\x80xt\n\n" + LINE.encode(),
        f"text\n\n{LINE.replace('—', '-')}".encode(),
        f"text\n\n{LINE.replace('— ', '—')}".encode(),
        f"text\n\n{LINE.replace(' ', '  ')}".encode(),
        f"text\n\n{LINE[:-1]} \n".encode(),
        f"text\n\n{LINE[:-1]}=\n".encode(),
        "text\n\n— example.com/log AAAAAA==\n".encode(),
        "text\n\n— example.com/log AAAA\n".encode(),
        "text\n\n— example.com/log \n".encode(),
        "text\n\n— exa+mple AAAAAAA=\n".encode(),
        "text\n\n—  AAAAAAA=\n".encode(),
        "text\n\n— a\N{NO-BREAK SPACE}b AAAAAAA=\n".encode(),
        "text\n\n— a\N{LINE SEPARATOR}b AAAAAAA=\n".encode(),
        f"text\n\n— {'x' * 256} AAAAAAA=\n".encode(),
        ("text\n\n" + LINE * (MAX_SIGNATURES + 1)).encode(),
        b"x" * MAX_NOTE_BYTES + f"\n\n{LINE}".encode(),
    ],
)
def test_bytes_that_are_no_note(data):
    with pytest.raises(InputError):
        parse_note(data)


@pytest.mark.parametrize("text", ["", "x", "x\r\n", "x\ny", "\x1f\n", "\ud800\n"])
def test_texts_that_nobody_signs(text):
    with pytest.raises(InputError):
        sign_note(text, [key()])


def test_a_note_without_signers():
    with pytest.raises(InputError):
        sign_note("x\n", [])


@pytest.mark.parametrize("lines", ["", "\n", "— a AAAAAAA=", "— a AAAAAAA=\n\n"])
def test_lines_that_are_no_signatures(lines):
    with pytest.raises(InputError):
        parse_signatures(lines)


def test_a_text_that_was_changed_is_not_believed():
    note = sign_note("sum 10\n", [key()])
    for text in ("sum 11\n", "sum 10\n\n", " sum 10\n", "sum 10 \n"):
        with pytest.raises(ProofError):
            Note(text=text, signatures=note.signatures).signed_by([key().verifier])


def test_who_is_not_known_vouches_for_nothing():
    note = sign_note("x\n", [key()])
    same_name, same_key = key(byte=2).verifier, key("example.com/other").verifier
    for known in ([], [same_name], [same_key], [same_name, same_key]):
        with pytest.raises(ProofError):
            note.signed_by(known)


def test_a_known_key_that_did_not_sign_spoils_the_note():
    good, other = key(), key("example.com/other", 2)
    note = sign_note("x\n", [good, other])
    forged = Signature(name=other.name, key_id=other.key_id, signature=bytes(64))
    spoiled = Note(text="x\n", signatures=(note.signatures[0], forged))
    assert [v for v, _ in spoiled.signed_by([good.verifier])] == [good.verifier]
    with pytest.raises(ProofError):
        spoiled.signed_by([good.verifier, other.verifier])
    twice = Note(text="x\n", signatures=(*note.signatures, forged))
    with pytest.raises(ProofError):
        twice.signed_by([other.verifier])


def test_the_example_of_the_specification():
    verifier = VerifierKey.parse(EXAMPLE_KEY)
    note = parse_note(EXAMPLE.encode())
    assert note.text == "This is an example message.\n"
    assert note.encode() == EXAMPLE
    assert [found for found, _ in note.signed_by([verifier])] == [verifier]
    assert str(verifier) == EXAMPLE_KEY


def test_old_and_new_keys_sign_side_by_side_and_each_counts_once():
    old, new = key(byte=1), key(byte=2)
    note = sign_note("x\n", [new, old])
    doubled = Note(text=note.text, signatures=note.signatures * 2)
    read = parse_note(doubled.encode().encode())
    assert [v for v, _ in read.signed_by([old.verifier, new.verifier])] == [new.verifier, old.verifier]
    assert [v for v, _ in read.signed_by([old.verifier])] == [old.verifier]
    assert read.with_signatures(note.signatures).signatures == note.signatures


def test_a_hundred_signatures_are_taken_also_long_ones():
    others = [
        Signature(name=f"w{i}", key_id=bytes(4), signature=bytes(2428)) for i in range(MAX_SIGNATURES - 1)
    ]
    note = sign_note("x\n", [key()]).with_signatures(others)
    assert len(parse_note(note.encode().encode()).signed_by([key().verifier])) == 1


def test_empty_lines_belong_to_the_text():
    note = sign_note("a\n\n\nb\n\n", [key()])
    read = parse_note(note.encode().encode())
    assert read.text == "a\n\n\nb\n\n"
    read.signed_by([key().verifier])


@pytest.mark.parametrize(
    "text", ["A", "AA", "AA=", "AB==", "A-==", "AA==\n", " AA==", "AA==AA==", "é", "AAF="]
)
def test_other_spellings_of_base64(text):
    with pytest.raises(InputError):
        decode_base64(text)


@pytest.mark.parametrize(
    "text", ["", "00", "01", "+1", "-1", " 1", "1 ", "1_0", "٣", "1\n", "9223372036854775808", "9" * 30]
)
def test_other_spellings_of_numbers(text):
    with pytest.raises(InputError):
        decode_number(text)


def test_numbers_and_hashes():
    assert decode_number("9223372036854775807") == 2**63 - 1
    assert decode_number("0") == 0
    assert decode_hash(encode_base64(bytes(32))) == bytes(32)
    for length in (0, 31, 33):
        with pytest.raises(InputError):
            decode_hash(encode_base64(bytes(length)))
