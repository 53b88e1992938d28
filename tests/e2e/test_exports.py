# SPDX-License-Identifier: Apache-2.0
"""Exports of a whole trust domain: settings, status, a receiver that goes and comes back, exports by hand."""

import json
import os
import subprocess
import sys

import pytest
from tests.support.receiver import Receiver, Reply
from tests.support.trust_domain import TrustDomainUnderTest, wait_until


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as opened:
        yield opened


@pytest.fixture(scope="module")
def domain(receiver):
    made = TrustDomainUnderTest()
    made.state.mkdir(mode=0o700)
    secret = made.root / "secret"
    secret.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    secret.chmod(0o600)
    (made.state / "everyhop.toml").write_text(
        f"""
        [[export]]
        name = "file"
        type = "jsonl"
        path = "{made.root}/out.jsonl"

        [[export]]
        name = "hook"
        type = "webhook"
        format = "record"
        url = "http://127.0.0.1:{receiver.port}/hook"
        secrets = [{{file = "{secret}"}}]
        longest_pause = "1s"
        """
    )
    receiver.replies = [Reply(500), Reply(410)]
    with made:
        yield made


def cli(domain, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "everyhop", *arguments],
        env=domain.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def status(domain):
    return json.loads(cli(domain, "log", "export", "status", "-o", "json").stdout)["exports"]


def test_what_is_refused(domain):
    assert cli(domain, "log", "export", "--to", "nobody").returncode == 6
    assert cli(domain, "log", "export", "resume", "nobody").returncode == 6
    assert cli(domain, "log", "export", "resume").returncode == 2
    assert cli(domain, "log", "export", "--to", "file", "--jsonl", "x").returncode == 2
    assert cli(domain, "log", "export", "--jsonl", str(domain.state / "everyhop.toml")).returncode == 5
    busy = cli(domain, "log", "export", "--to", "file")
    assert busy.returncode == 1
    assert "another process writes" in busy.stderr


def test_the_file_gets_events_and_the_hook_is_off_until_it_is_resumed(domain, receiver):
    events = wait_until(
        lambda: (domain.root / "out.jsonl").exists() and (domain.root / "out.jsonl").read_text()
    )
    assert json.loads(events.splitlines()[0])["class_uid"]
    wait_until(lambda: status(domain)["hook"]["disabled"])
    shown = json.loads(cli(domain, "status", "-o", "json").stdout)["exports"]["hook"]
    assert "410" in shown["last_error"]
    assert shown["behind"] > 0
    text = cli(domain, "log", "export").stdout
    assert "everyhop log export resume hook" in text
    assert "hook" in cli(domain, "status").stdout
    posts = len(receiver.got)
    assert cli(domain, "log", "export", "resume", "hook").returncode == 0
    wait_until(lambda: status(domain)["hook"]["behind"] == 0)
    assert status(domain)["hook"]["last_error"] is None
    sent = [json.loads(got.body)["data"]["index"] for got in receiver.got[posts:]]
    assert sent == list(range(1, len(sent) + 1))
    reasons = [r.get("reason") for r in domain.records(kind="log")]
    assert "disabled" in reasons


def test_an_export_by_hand_is_recorded_and_complete(domain, receiver):
    path = domain.root / "by-hand.jsonl"
    made = cli(domain, "log", "export", "--jsonl", str(path), "-o", "json")
    assert made.returncode == 0, made.stderr
    result = json.loads(made.stdout)
    lines = path.read_bytes().splitlines()
    assert path.stat().st_mode & 0o777 == 0o600
    assert result["complete"]
    assert len(lines) == result["records"] == result["last"]
    last = json.loads(lines[-1])
    assert (last["id"], last["kind"], last["operation"]) == (result["record"], "log", "export")
    assert last["caller"] == f"uid:{os.geteuid()}" or str(os.geteuid()) in last["caller"]
    assert last["detail"]["to"] == "file by-hand.jsonl"

    posts = len(receiver.got)
    again = cli(domain, "log", "export", "--to", "hook", "--after", "1", "--since", "1h", "-o", "json")
    assert again.returncode == 0, again.stderr
    assert len(receiver.got) - posts >= json.loads(again.stdout)["records"]
