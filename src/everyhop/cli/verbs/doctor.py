# SPDX-License-Identifier: Apache-2.0
"""``everyhop doctor``: is everything here that everyhop needs, and is it healthy."""

from __future__ import annotations

import argparse

from everyhop.cli.arguments import add_output, add_state, layout_of
from everyhop.cli.exit_codes import FAILED, OK
from everyhop.cli.output import paint, print_json, wants_json


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "doctor", help="check this machine and the state directory, with the fix for each fault"
    )
    add_state(parser)
    add_output(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from everyhop.runtime.doctor import examine

    findings = examine(layout_of(args))
    if wants_json(args):
        print_json([{"check": f.check, "ok": f.is_ok, "detail": f.detail, "fix": f.fix} for f in findings])
    else:
        for finding in findings:
            mark = paint("ok  ", "green") if finding.is_ok else paint("BAD ", "red")
            print(f"{mark} {finding.check:<28} {finding.detail}")
            if not finding.is_ok and finding.fix:
                print(f"     fix: {finding.fix}")
    return OK if all(f.is_ok for f in findings) else FAILED
