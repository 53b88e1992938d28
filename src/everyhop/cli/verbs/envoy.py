# SPDX-License-Identifier: Apache-2.0
"""``everyhop envoy show``: the configuration of a service's sidecar, as Envoy reads it."""

from __future__ import annotations

import argparse

from everyhop.cli.arguments import add_state, agent
from everyhop.cli.exit_codes import OK
from everyhop.cli.output import print_json


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    noun = commands.add_parser("envoy", help="look into a sidecar")
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    show = verbs.add_parser(
        "show", help="print the configuration files of a service's sidecar (JSON; no secrets)"
    )
    show.add_argument("service", metavar="SERVICE")
    add_state(show)
    show.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    print_json(agent(args).get(f"/v1/envoy/{args.service}"))
    return OK
