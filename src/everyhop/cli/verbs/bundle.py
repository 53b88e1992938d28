# SPDX-License-Identifier: Apache-2.0
"""``everyhop bundle show``: the trust bundle as the standard's document."""

from __future__ import annotations

import argparse

from everyhop.cli.arguments import add_state, admin
from everyhop.cli.output import print_json


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    noun = commands.add_parser("bundle", help="the trust bundle (SPIFFE bundle document)")
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    show = verbs.add_parser("show", help="print the bundle document (JSON)")
    add_state(show)
    show.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    print_json(admin(args).get("/v1/bundle"))
    return 0
