# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one text for one head, and no log vouches for another."""

import pytest

from everyhop.core.errors import InputError, ProofError
from everyhop.core.secret import Secret
from everyhop.tlog.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from everyhop.tlog.keys import SignerKey
from everyhop.tlog.note import sign_note

ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
TEXT = f"example.com/behind-the-sofa\n20852163\n{ROOT}\n"  # c2sp.org/tlog-checkpoint
KEY = SignerKey("example.com/behind-the-sofa", Secret(b"k" * 32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "a\n1\n",
        f"a\n1\n{ROOT}",
        f"\n1\n{ROOT}\n",
        f"a\n01\n{ROOT}\n",
        f"a\n-1\n{ROOT}\n",
        f"a\n1 \n{ROOT}\n",
        f"a\n9223372036854775808\n{ROOT}\n",
        "a\n1\nAAAA\n",
        f"a\n1\n{ROOT[:-1]}\n",
        f"a\n1\n{ROOT}\n\n",
        f"a\n1\n{ROOT}\n\nx\n",
        f"a\n1\n{ROOT}\nx\ty\n",
        f"a\x00b\n1\n{ROOT}\n",
        f"{'a' * 256}\n1\n{ROOT}\n",
        f"a\n\n1\n{ROOT}\n",
    ],
)
def test_texts_that_are_no_checkpoint(text):
    with pytest.raises(InputError):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    "members",
    [{"root": b""}, {"size": -1}, {"size": 2**63}, {"origin": ""}, {"origin": "a\nb"}, {"extensions": ("",)}],
)
def test_heads_without_a_text(members):
    with pytest.raises(InputError):
        Checkpoint(**{"origin": "a", "size": 1, "root": bytes(32), **members})


def test_a_checkpoint_nobody_known_signed():
    note = sign_note(TEXT, [KEY]).encode().encode()
    other = SignerKey(KEY.name, Secret(b"o" * 32))
    for known in ([], [other.verifier], [SignerKey("example.com/x", Secret(b"k" * 32)).verifier]):
        with pytest.raises(ProofError):
            open_checkpoint(note, known)


def test_the_key_of_one_log_does_not_vouch_for_another():
    foreign = SignerKey("example.com/foreign", Secret(b"f" * 32))
    note = sign_note(TEXT, [foreign]).encode().encode()
    with pytest.raises(ProofError):
        open_checkpoint(note, [foreign.verifier])
    with pytest.raises(ProofError):
        open_checkpoint(note, [foreign.verifier, KEY.verifier])


def test_what_is_signed_comes_back():
    checkpoint, note = parse_checkpoint(sign_note(TEXT, [KEY]).encode().encode())
    assert (checkpoint.origin, checkpoint.size, checkpoint.text) == (KEY.name, 20852163, TEXT)
    signed = open_checkpoint(note.encode().encode(), [KEY.verifier])
    assert signed.checkpoint == checkpoint
    assert signed.keys == (KEY.key_id.hex(),)
    longer = Checkpoint.parse(TEXT + "one more\n")
    assert (longer.extensions, longer.text) == (("one more",), TEXT + "one more\n")
    assert Checkpoint.parse(f"a\n0\n{ROOT}\n").size == 0
