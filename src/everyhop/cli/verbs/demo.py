# SPDX-License-Identifier: Apache-2.0
"""``everyhop demo``: the guided tour."""

from __future__ import annotations

import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "demo",
        help="guided tour: real services, real attacks, expected against seen",
        description="Starts a shop of four services behind real sidecars in a temporary state directory, runs its "
        "legitimate calls and then the attacks.  Exit code 0 only if every result is the expected one.",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave everything running at the end, until Ctrl-C"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show details of every step")
    parser.add_argument(
        "-o", "--output", choices=["text", "json"], default="text", help="text (default) or json"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from everyhop.demo import run_demo

    return run_demo(keep=args.keep, verbose=args.verbose, as_json=args.output == "json")
