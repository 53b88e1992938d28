# SPDX-License-Identifier: Apache-2.0
"""A bundle under an evaluator of Rego that is not ours: regopy, in a process of its own.

Regopy 1.5 and CEL do not bear each other in one process.  It breaks down under ``with input as`` for rules as ours too, so
only the module that is asked is loaded; the others run under OPA itself (tests/conformance/opa).
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from everyhop.targets.model import File

_WORKER = Path(__file__).with_name("rego_worker.py")
_running: list[subprocess.Popen[str]] = []


class RegoBundle:
    """The files of one bundle."""

    def __init__(
        self, files: Iterable[File], package: str = "everyhop.authz", module: str = "policy.rego"
    ) -> None:
        self._package = package
        contents = {file.path: file.content.decode() for file in files}
        self._order = {
            "data": [json.loads(contents["opa/data.json"])],
            "modules": {module: contents[f"opa/{module}"]},
        }

    def ask(self, question: object, rule: str = "decision") -> Any:
        """Return the value of a rule for an input; None where it is undefined."""
        worker = _worker()
        if _loaded.get("order") is not self._order:
            _exchange(worker, self._order)
            _loaded["order"] = self._order
        query = f"data.{self._package}.{rule}"
        return _exchange(worker, {"query": query, "input": _escaped(question)})


_loaded: dict[str, Any] = {}


def _worker() -> subprocess.Popen[str]:
    if _running and _running[0].poll() is None:
        return _running[0]
    _running.clear()
    _loaded.clear()
    process = subprocess.Popen(
        [sys.executable, str(_WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    _running.append(process)
    return process


@atexit.register
def _end() -> None:
    for process in _running:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _exchange(process: subprocess.Popen[str], order: object) -> Any:
    if process.stdin is None or process.stdout is None:
        raise AssertionError("the worker has no streams")
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise AssertionError(f"regopy ended with {process.wait()}")
    return json.loads(line)


def _escaped(value: Any) -> Any:
    """Regopy 1.5 reads the escapes of an input's texts once more when a built-in function takes them."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)[1:-1]
    if isinstance(value, list):
        return [_escaped(one) for one in value]
    return {key: _escaped(one) for key, one in value.items()} if isinstance(value, dict) else value
