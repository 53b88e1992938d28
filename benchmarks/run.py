# SPDX-License-Identifier: Apache-2.0
"""Run the benchmarks one after the other and say which of them miss their bar.

Each claim has one script, ``benchmarks/bench_<claim>.py``. A script states its machine, versions, input and
warm-up, checks that both sides give the same answer, prints its figures, and exits 0 when its bar is met, 1 when
it is missed, and 77 when something it compares with is absent here. They never run side by side: the figures
are ratios, and a neighbour would spoil them.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERDICTS = {0: "met", 1: "MISSED", 77: "skipped"}


def main() -> int:
    """Give 0 when every benchmark that could run met its bar."""
    parser = argparse.ArgumentParser(description="Run the benchmarks and compare each with its bar.")
    parser.add_argument("claims", nargs="*", help="names as in bench_<name>.py; all when none is given")
    parser.add_argument("--list", action="store_true", help="only name them")
    options = parser.parse_args()

    known = {path.stem.removeprefix("bench_"): path for path in sorted(HERE.glob("bench_*.py"))}
    unknown = sorted(set(options.claims) - set(known))
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; known: {', '.join(known) or 'none'}")
    chosen = {name: path for name, path in known.items() if not options.claims or name in options.claims}
    if options.list:
        print("\n".join(chosen))
        return 0

    results = []
    for name, path in chosen.items():
        print(f"== {name}", flush=True)
        began = time.monotonic()
        code = subprocess.run([sys.executable, str(path)], check=False).returncode
        results.append((name, VERDICTS.get(code, f"BROKEN (exit {code})"), time.monotonic() - began))
    print()
    for name, verdict, seconds in results:
        print(f"{name:<32} {verdict:<20} {seconds:7.1f} s")
    return 0 if all(verdict in {"met", "skipped"} for _, verdict, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
