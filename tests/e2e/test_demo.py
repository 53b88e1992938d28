# SPDX-License-Identifier: Apache-2.0
"""``everyhop demo`` from start to end: every result as expected, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.timeout(240)]

DEMO = [sys.executable, "-m", "everyhop", "demo"]
SECONDS = 200


def processes_naming(text):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in path.read_bytes().decode("utf-8", "replace"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_every_attack_is_refused_and_every_legitimate_call_passes():
    done = subprocess.run([*DEMO, "-o", "json"], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    wrong = [r for r in told["flows"] + told["attacks"] if not r["ok"]]
    assert not wrong, json.dumps(wrong, indent=2)
    assert done.returncode == 0
    assert told["ok"] is True
    assert len(told["attacks"]) >= 30
    assert told["decisions_recorded"] >= len(told["attacks"]) / 2
    explained = [r for r in told["attacks"] if r["decision"]]
    assert len(explained) >= 30
    assert all(r["reason"] for r in explained)


def test_sigterm_ends_everything_and_removes_the_state():
    with subprocess.Popen(
        DEMO, stdout=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"}
    ) as demo:
        state = demo.stdout.readline().split()[-1]
        assert wait_until(lambda: len(processes_naming(state)) > 1, 30)
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(30) == 128 + signal.SIGTERM
    assert not Path(state).exists()
    assert wait_until(lambda: not processes_naming(state), 5), processes_naming(state)
