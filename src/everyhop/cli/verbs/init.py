# SPDX-License-Identifier: Apache-2.0
"""``everyhop init``: a starter policy, settings, and a service to try it with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from everyhop.cli.exit_codes import OK

_FILES: Final = ("everyhop.yaml", "everyhop.toml", "orders.py")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("init", help="write a starter policy, settings and a sample service")
    parser.add_argument("directory", metavar="DIR", nargs="?", type=Path, default=Path())
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from importlib import resources

    from everyhop.core.errors import Conflict

    there = [name for name in _FILES if (args.directory / name).exists()]
    if there:
        raise Conflict(
            f"{args.directory / there[0]} exists already; nothing was written", hint="name another directory"
        )
    args.directory.mkdir(parents=True, exist_ok=True)
    starter = resources.files("everyhop.cli.starter")
    for name in _FILES:
        with (args.directory / name).open("x", encoding="utf-8") as stream:
            stream.write((starter / name).read_text(encoding="utf-8"))
    enter = "" if args.directory == Path() else f"  cd {args.directory}\n"
    print(f"""wrote {", ".join(_FILES)}

next, each in a terminal of its own:
{enter}  everyhop up
  everyhop run orders -- python3 orders.py
  everyhop run storefront -- curl -s http://orders/orders
  everyhop run storefront -- curl -s -X POST http://orders/orders     (refused: see everyhop log show --denied)""")
    return OK
