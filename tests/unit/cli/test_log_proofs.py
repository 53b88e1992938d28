# SPDX-License-Identifier: Apache-2.0
"""``log verify|prove|export --tiles|restart`` over a real state directory: what they say, and their exit codes."""

import json
import shutil
from datetime import timedelta

import pytest
from tests.support.ledger import record
from tests.support.sealed_log import SealedLog

from everyhop.auditlog import RecordFilter
from everyhop.cli.__main__ import main
from everyhop.policy import encode_snapshot, parse_policy
from everyhop.providers.log_keys import FileLogSigner

POLICY = parse_policy({"p": b"version: 1\ntrust_domain: shop.example\nservices: {orders: {}}\n"})
FORGE = "UPDATE records SET line = CAST(replace(line, 'allow[0]', 'allow[1]') AS BLOB) WHERE n = 77"


class State(SealedLog):
    """A state directory as ``up`` leaves it."""

    def __init__(self, root):
        self.state = root
        (root / "keys").mkdir(mode=0o700, exist_ok=True)
        super().__init__(root)
        self.keys = root / "keys" / "log"
        self.keys.mkdir(mode=0o700, exist_ok=True)
        self.signer = FileLogSigner.create(self.keys, "shop.example")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = tmp_path_factory.mktemp("state")
    root.chmod(0o700)
    made = State(root)
    made.storage.snapshots.save(encode_snapshot(POLICY), POLICY.hash, "p", made.clock.now())
    made.append(299)
    (root / "early").write_text(made.sign())
    made.append(200)
    (root / "late").write_text(made.sign())
    (root / "vkey").write_text(f"{made.signer.verifiers[0]}\n")
    made.close()
    return root


@pytest.fixture
def state(template, tmp_path, monkeypatch):
    root = shutil.copytree(template, tmp_path / "state")
    monkeypatch.setenv("EVERYHOP_STATE", str(root))
    monkeypatch.chdir(tmp_path)
    made = State(root)
    made.close()
    yield made
    made.close()


def run(capsys, *arguments):
    code = main(["log", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_an_altered_record_is_exit_code_1_and_named(state, capsys):
    state.execute(FORGE)
    code, out, _ = run(capsys, "verify")
    assert code == 1
    assert out.startswith("ALTERED: record 77 (agent-76) is not what was sealed (index 76)")
    code, out, _ = run(capsys, "verify", "-o", "json")
    assert (code, json.loads(out)["first_bad"]) == (1, 76)


def test_a_cut_end_is_told_by_a_checkpoint_that_was_kept(state, capsys):
    state.execute("DELETE FROM records WHERE n > 400", "DELETE FROM log_checkpoints WHERE size > 400")
    state.reseal()
    assert run(capsys, "verify")[0] == 0
    code, out, _ = run(capsys, "verify", "--against", state.root / "late", "--against", state.root / "early")
    assert code == 1
    assert "RESTORED: an older state: the log says that it has 400 records" in out
    assert "evidence, signed by the log's key:" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--vkey", "nowhere"),
        ("--vkey", "a+b+c"),
        ("--against", "nowhere"),
        ("--tiles", "nowhere"),
        ("--url", "ftp://x"),
        ("--url", "unix:/nowhere"),
        ("--receipt", "nowhere"),
        ("--quorum", "1"),
        ("--witness", "nowhere"),
        ("--url", "https://127.0.0.1:1", "--svid", "nowhere"),
        ("--state", "nowhere"),
    ],
)
def test_what_cannot_be_verified_is_exit_code_2(state, capsys, arguments):
    code, out, err = run(capsys, "verify", *arguments)
    assert code == 2
    assert err or out.startswith("UNVERIFIED")
    assert "intact" not in out
    code, out, _ = run(capsys, "verify", *arguments, "-o", "json")
    assert (code, json.loads(out)["outcome"]) == (2, "unverified")


def test_a_witness_that_did_not_cosign_leaves_it_unverified(state, capsys):
    key = "witness.example/w1+2786ffe5+BBbCNC4RPewzfqf8Eo0DLpB5yl62a3w38VNUt8tWD/Eo"
    code, out, _ = run(capsys, "verify", "--witness", key)
    assert code == 2
    assert "0 of 1 witnesses cosigned" in out
    assert run(capsys, "verify", "--witness", key, "--quorum", "0")[0] == 0
    run(capsys, "prove", "agent-5", "--out", "r")
    assert run(capsys, "verify", "--receipt", "r", "--witness", key)[0] == 2


def test_keys_of_several_logs_are_not_mixed(state, capsys):
    other = "shop.example/log/fba9de8b+2118bc95+AW3XpmubG98of5C9RlMT6D4kryw2huHObTa1E3p73am3"
    code, _, err = run(capsys, "verify", "--vkey", state.root / "vkey", "--vkey", other)
    assert code == 2
    assert "several logs" in err
    code, out, _ = run(capsys, "verify", "--vkey", other)
    assert code == 2
    assert "no checkpoint that a trusted key signed" in out


def test_an_intact_log(state, capsys):
    code, out, _ = run(capsys, "verify", "--vkey", state.root / "vkey", "--against", state.root / "early")
    assert code == 0
    first, second = out.splitlines()[:2]
    assert first == f"intact: 500 records of {state.signer.origin}, signed for up to 500"
    assert second == "500 records of 2 producers, 0 seals: complete"


def test_a_number_that_is_missing_is_told_apart_from_integrity(state, capsys):
    state.reopen()
    state.storage.records.append([record(900)])
    state.sign()
    code, out, _ = run(capsys, "verify")
    assert code == 2
    assert out.startswith("intact: 501 records")
    assert "NOT complete" in out
    assert "missing: agent 500 to 899" in out
    code, out, _ = run(capsys, "verify", "-o", "json")
    told = json.loads(out)
    assert (code, told["outcome"], told["completeness"]["complete"]) == (2, "intact", False)


def test_a_receipt_is_verified_where_nothing_else_is(state, capsys, tmp_path, monkeypatch):
    assert run(capsys, "prove", "agent-76")[0] == 0
    vkey = (state.root / "vkey").read_text().strip()
    empty = tmp_path / "empty"
    empty.mkdir()
    receipt = shutil.move("agent-76.tlog-proof", empty)
    monkeypatch.chdir(empty)
    monkeypatch.setenv("EVERYHOP_STATE", str(empty / "nothing"))
    code, out, _ = run(capsys, "verify", "--receipt", receipt, "--vkey", vkey)
    assert code == 0
    assert "record 77 of" in out
    code, out, _ = run(capsys, "verify", "--receipt", receipt, "--vkey", vkey, "-o", "json")
    assert json.loads(out)["record"]["id"] == "agent-76"
    assert run(capsys, "verify", "--receipt", receipt)[0] == 2
    changed = (empty / "changed").write_text
    changed((empty / "agent-76.tlog-proof").read_text().replace("index 76", "index 75"))
    code, out, _ = run(capsys, "verify", "--receipt", "changed", "--vkey", vkey)
    assert (code, out.split(":")[0]) == (1, "TAMPERED")


def test_a_receipt_to_standard_output_and_never_over_a_file(state, capsysbinary, tmp_path):
    assert main(["log", "prove", "agent-5", "--out", "-"]) == 0
    assert capsysbinary.readouterr().out.startswith(b"c2sp.org/tlog-proof@v1\n")
    (tmp_path / "mine").write_text("x")
    assert main(["log", "prove", "agent-5", "--out", "mine"]) == 2
    assert (tmp_path / "mine").read_text() == "x"
    assert main(["log", "prove", "nobody"]) == 6
    assert main(["log", "prove", "agent-5", "--state", "nowhere"]) == 6


def test_tiles_are_written_recorded_and_verified(state, capsys):
    code, out, _ = run(capsys, "export", "--tiles", "t")
    assert (code, out) == (0, f"{state.signer.origin}: 500 records, 500 of them new, 7 files written\n")
    assert run(capsys, "verify", "--tiles", "t", "--vkey", "t/log.vkey")[0] == 0
    assert run(capsys, "export", "--tiles", "t", "-o", "json")[0] == 0
    state.reopen()
    newest = newest_of(state)
    assert (newest.operation, newest.detail["to"]) == ("export", 500)


def test_shipped_checkpoints_are_checked_all(state, capsys, tmp_path):
    notes = [(state.root / name).read_text() for name in ("early", "late")]
    shipped = tmp_path / "shipped"
    shipped.write_text("".join(json.dumps({"note": note, "size": 1}) + "\n" for note in notes))
    assert run(capsys, "verify", "--against", shipped)[0] == 0
    shipped.write_text(shipped.read_text() + "{}\n")
    assert run(capsys, "verify", "--against", shipped)[0] == 2


def test_a_new_log_names_the_one_that_was_lost(state, capsys):
    old = state.signer.origin
    assert run(capsys, "restart", "--reason", " ")[0] == 2
    code, out, _ = run(capsys, "restart", "--reason", "the disk was lost")
    assert code == 0
    state.reopen()
    record = newest_of(state)
    assert (record.operation, record.detail["because"]) == ("restart", "the disk was lost")
    assert (record.detail["old_origin"], record.detail["old_size"]) == (old, 500)
    new = FileLogSigner(state.keys)
    assert new.origin in out
    assert new.origin != old
    # What vouched for the old log says nothing about the new one.
    code, out, _ = run(capsys, "verify", "--against", state.root / "late")
    assert code == 2
    assert "is of " + old in out
    state.signer = new
    state.clock.advance(timedelta(hours=1))
    state.sign()
    assert run(capsys, "verify")[0] == 0


def newest_of(state):
    return state.storage.records.query(RecordFilter(), limit=1).records[0]
