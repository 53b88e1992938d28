# SPDX-License-Identifier: Apache-2.0
"""``everyhop keys``: the signing authorities of the trust domain."""

from __future__ import annotations

import argparse
from typing import Any

from everyhop.cli.arguments import add_output, add_state, admin
from everyhop.cli.output import print_json, table, wants_json


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    noun = commands.add_parser("keys", help="list or rotate the trust domain's signing authorities")
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="every authority of the bundle with its state")
    add_state(listing)
    add_output(listing)
    listing.set_defaults(run=_list)
    rotate = verbs.add_parser(
        "rotate",
        help="prepare, publish, wait until every sidecar holds it, then sign with a new authority",
        description="No request fails: the new authority signs only after every agent has acknowledged the bundle.",
    )
    add_state(rotate)
    add_output(rotate)
    rotate.add_argument(
        "--kind", choices=["x509", "jwt"], default="x509", help="which authority (default: x509)"
    )
    rotate.add_argument(
        "--timeout", type=float, default=20.0, help="seconds to wait for agents (default: 20)"
    )
    rotate.set_defaults(run=_rotate)


def _show(args: argparse.Namespace, answer: dict[str, Any]) -> int:
    if wants_json(args):
        print_json(answer)
        return 0
    rows = [[a["kind"], a["state"], a["id"], a["not_before"], a["not_after"]] for a in answer["authorities"]]
    print(table(["kind", "state", "id", "not before", "not after"], rows))
    return 0


def _list(args: argparse.Namespace) -> int:
    return _show(args, admin(args).get("/v1/authorities"))


def _rotate(args: argparse.Namespace) -> int:
    message = {"kind": args.kind, "timeout": args.timeout}
    return _show(args, admin(args, timeout=args.timeout + 10).post("/v1/rotate", message))
