# SPDX-License-Identifier: Apache-2.0
"""The witness protocol: each refusal with its status, in the order of the specification."""

import dataclasses

import pytest

from everyhop.core.errors import InputError
from everyhop.core.secret import Secret
from everyhop.tlog.checkpoint import Checkpoint
from everyhop.tlog.encoding import encode_base64
from everyhop.tlog.keys import SignerKey
from everyhop.tlog.merkle import EMPTY_ROOT, Frontier, consistency_proof, leaf_hash
from everyhop.tlog.note import Note, Signature, sign_note
from everyhop.tlog.tiles import root_of
from everyhop.tlog.witness import MAX_REQUEST_BYTES, AddCheckpoint, RefusedError, Status, judge, parse_size

KEY = SignerKey("example.com/log", Secret(b"k" * 32))
LOGS = {KEY.name: [KEY.verifier]}
LEAVES = [leaf_hash(str(i).encode()) for i in range(20)]
HASH = encode_base64(LEAVES[0])


def head(size, root=None):
    frontier = Frontier()
    frontier.extend(LEAVES[:size])
    return Checkpoint(origin=KEY.name, size=size, root=frontier.root() if root is None else root)


def ask(old, size, *, root=None, signer=KEY, proof=None):
    checkpoint = head(size, root)
    if proof is None:
        right = 0 <= old <= size
        proof = (
            consistency_proof(old, size, lambda h, n: root_of(LEAVES[n << h : (n + 1) << h])) if right else []
        )
    return AddCheckpoint(
        old=old, proof=tuple(proof), checkpoint=checkpoint, note=sign_note(checkpoint.text, [signer])
    )


NOTE = ask(0, 5).note.encode().encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0\n",
        NOTE,
        b"old 0\n" + NOTE,
        b"old 00\n\n" + NOTE,
        b"old -1\n\n" + NOTE,
        b"Old 0\n\n" + NOTE,
        b"old  0\n\n" + NOTE,
        b"old 0\r\n\n" + NOTE,
        f"old 3\n{HASH} \n\n".encode() + NOTE,
        "old 3\né\n\n".encode() + NOTE,
        b"old 3\nAAAA\n\n" + NOTE,
        b"old 3\n" + f"{HASH}\n".encode() * 64 + b"\n" + NOTE,
        b"old 0\n\n" + NOTE[:-1],
        b"old 0\n\n" + sign_note("x\n", [KEY]).encode().encode(),
        b"x" * (MAX_REQUEST_BYTES + 1),
    ],
)
def test_bodies_that_are_no_request(body):
    with pytest.raises(InputError):
        AddCheckpoint.parse(body)


def refused(request, *, last=None, logs=LOGS):
    with pytest.raises(RefusedError) as error:
        judge(request, logs=logs, last=last)
    return error.value


def test_a_log_that_is_not_known_comes_before_everything_else():
    assert refused(ask(9, 5), logs={}).status is Status.NOT_FOUND


def test_a_checkpoint_that_the_log_did_not_sign():
    other = SignerKey(KEY.name, Secret(b"o" * 32))
    assert refused(ask(9, 5, signer=other)).status is Status.FORBIDDEN
    forged = Signature(name=KEY.name, key_id=KEY.key_id, signature=bytes(64))
    request = ask(0, 5)
    spoiled = Note(text=request.note.text, signatures=(*request.note.signatures, forged))
    assert refused(dataclasses.replace(request, note=spoiled)).status is Status.FORBIDDEN


def test_an_old_size_larger_than_the_new_one():
    assert refused(ask(9, 5), last=head(9)).status is Status.BAD_REQUEST


def test_an_old_size_that_is_not_the_last_one():
    error = refused(ask(3, 9), last=head(5))
    assert (error.status, error.size, error.evidence) == (Status.CONFLICT, 5, False)
    assert refused(ask(3, 9)).size == 0
    # A witness never goes back: a smaller checkpoint of a log that it knows further on.
    assert refused(ask(3, 4), last=head(9)).size == 9


def test_what_does_not_follow_is_not_cosigned():
    wrong = ask(5, 9, root=leaf_hash(b"x"))
    error = refused(wrong, last=head(5))
    assert (error.status, error.evidence) == (Status.UNPROCESSABLE, False)
    assert refused(ask(5, 9, proof=[]), last=head(5)).status is Status.UNPROCESSABLE
    assert refused(ask(0, 9, proof=[LEAVES[0]])).status is Status.UNPROCESSABLE
    assert refused(ask(5, 5, proof=[LEAVES[0]]), last=head(5)).status is Status.UNPROCESSABLE
    assert refused(ask(0, 0, root=leaf_hash(b"x"))).status is Status.UNPROCESSABLE


def test_two_roots_of_one_size_are_evidence():
    error = refused(ask(5, 5, root=leaf_hash(b"x")), last=head(5))
    assert (error.status, error.evidence) == (Status.UNPROCESSABLE, True)


@pytest.mark.parametrize("text", [b"", b"5", b"05\n", b"5\n\n", b"-1\n", b"\xff\n"])
def test_answers_that_are_no_size(text):
    with pytest.raises(InputError):
        parse_size(text)


@pytest.mark.parametrize(("old", "size"), [(0, 0), (0, 1), (0, 20), (1, 1), (1, 20), (7, 8), (8, 17)])
def test_what_follows_is_cosigned(old, size):
    request = AddCheckpoint.parse(ask(old, size).encode())
    assert request == ask(old, size)
    assert judge(request, logs=LOGS, last=head(old) if old else None) == head(size)
    assert head(0).root == EMPTY_ROOT
    assert parse_size(b"5\n") == 5
