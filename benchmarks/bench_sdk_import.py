# SPDX-License-Identifier: Apache-2.0
"""What importing the SDK costs over bare Python.

Bar: ``import everyhop.sdk`` adds less than 100 ms (issue 3).  Each figure is the median of fresh interpreters, the
statements interleaved; the cost of Python itself is measured in the same rounds and subtracted.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time

ROUNDS = 15
BAR_MS = 100.0
STATEMENTS = {
    "bare Python": "pass",
    "import everyhop.sdk": "import everyhop.sdk",
    "caller, user, require, outgoing_headers": (
        "from everyhop.sdk import caller, user, require, outgoing_headers"
    ),
    "Guard": "from everyhop.sdk import Guard",
    "connect": "from everyhop.sdk import connect",
    "everything": "from everyhop.sdk import *",
}


def once(statement):
    """Return the milliseconds that a fresh interpreter takes for a statement, start and end included."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return (time.perf_counter() - begun) * 1000


def main():
    for statement in STATEMENTS.values():
        once(statement)  # bytecode is written, files are in memory
    times = {name: [] for name in STATEMENTS}
    for _ in range(ROUNDS):
        for name, statement in STATEMENTS.items():
            times[name].append(once(statement))
    bare = statistics.median(times["bare Python"])
    print(f"{platform.python_implementation()} {platform.python_version()}, {ROUNDS} rounds")
    print(f"{'bare Python':42} {bare:7.1f} ms")
    for name in list(STATEMENTS)[1:]:
        median, fastest = statistics.median(times[name]) - bare, min(times[name]) - min(times["bare Python"])
        print(f"{name:42} {median:+7.1f} ms   (fastest {fastest:+.1f})")
    cost = statistics.median(times["import everyhop.sdk"]) - bare
    print(f"bar: {cost:.1f} ms of {BAR_MS:.0f} ms: {'met' if cost < BAR_MS else 'MISSED'}")
    return 0 if cost < BAR_MS else 1


if __name__ == "__main__":
    sys.exit(main())
