# SPDX-License-Identifier: Apache-2.0
"""The ``everyhop`` command: parse, dispatch, turn errors into messages and exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from everyhop import __version__
from everyhop.cli import exit_codes, output
from everyhop.cli.verbs import VERBS
from everyhop.core.errors import EveryhopError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Sequence

_EPILOG: Final = """\
examples:
  everyhop init shop && cd shop          a starter policy
  everyhop up --policy everyhop.yaml     the whole trust domain, in the foreground
  everyhop run orders -- python app.py   a workload behind its sidecar
  everyhop can storefront 'GET /orders' orders
  everyhop log tail --denied             every refusal, as it happens
  everyhop why 5f0c…                     why this call was refused, and what would allow it

exit codes: 0 ok · 1 failed · 2 invalid input · 3 denied · 4 nothing is up · 5 conflict · 6 not found
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"everyhop: {message}", file=sys.stderr)
        raise SystemExit(exit_codes.INVALID)


def build_parser() -> argparse.ArgumentParser:
    """Build the whole tree of commands; no command's own imports happen here."""
    parser = _Parser(
        prog="everyhop",
        description="Zero trust for services: identity, mutual TLS and default deny on every hop.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"everyhop {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for verb in VERBS:
        verb.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    args = build_parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except PolicyError as error:
        for problem in error.problems:
            print(problem.render(), file=sys.stderr)
        return exit_codes.INVALID
    except EveryhopError as error:
        output.print_error(error)
        return exit_codes.exit_code_of(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; whatever is left to flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    else:
        sys.stdout.flush()
        return code


if __name__ == "__main__":
    sys.exit(main())
