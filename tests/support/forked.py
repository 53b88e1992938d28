# SPDX-License-Identifier: Apache-2.0
"""Run a function in a process of its own, perhaps as another user, and get its answer."""

from __future__ import annotations

import json
import os
import select
import signal
import traceback
import warnings


def start(function, *arguments, uid=None, gid=None, groups=()):
    """Fork; the child becomes the user, runs the function and writes its result as JSON.  Returns (pid, fd)."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child uses none of our threads
        pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    try:
        os.close(reader)
        if uid is not None:
            os.setgroups(list(groups))
            os.setgid(uid if gid is None else gid)
            os.setuid(uid)
        result = {"ok": function(*arguments)}
    except BaseException:
        result = {"error": traceback.format_exc()}
    os.write(writer, json.dumps(result).encode())
    os._exit(0)


def result(started, *, timeout=20.0):
    """Wait for a started child's answer; raises AssertionError with its traceback."""
    pid, reader = started
    try:
        raw = b""
        while select.select([reader], [], [], timeout)[0]:
            chunk = os.read(reader, 65536)
            if not chunk:
                break
            raw += chunk
        else:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError("the child did not answer")
    finally:
        os.close(reader)
        os.waitpid(pid, 0)
    answer = json.loads(raw)
    assert "error" not in answer, answer["error"]
    return answer["ok"]


def run(function, *arguments, **options):
    return result(start(function, *arguments, **options))
