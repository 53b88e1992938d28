# SPDX-License-Identifier: Apache-2.0
"""``everyhop entry``: the registration entries that the policy gives rise to."""

from __future__ import annotations

import argparse

from everyhop.cli.arguments import add_output, add_state, admin
from everyhop.cli.exit_codes import OK
from everyhop.cli.output import print_json, table, wants_json


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    noun = commands.add_parser("entry", help="registration entries (derived from the policy, never edited)")
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="every entry: SPIFFE ID and selectors")
    show = verbs.add_parser("show", help="the entries of one service")
    show.add_argument("service", metavar="SERVICE")
    for verb in (listing, show):
        add_state(verb)
        add_output(verb)
        verb.set_defaults(run=_run, service=None)


def _run(args: argparse.Namespace) -> int:
    from everyhop.core.errors import NotFound
    from everyhop.policy import decode_snapshot

    snapshot = decode_snapshot(admin(args).get_bytes("/v1/snapshot"))
    if args.service is not None and args.service not in snapshot.services:
        raise NotFound(f"no service {args.service!r} in the policy in force")
    entries = [
        {"service": s.name, "spiffe_id": str(s.spiffe_id), "selectors": sorted(map(str, alternative))}
        for s in snapshot.services.values()
        if args.service in {None, s.name}
        for alternative in s.workload
    ]
    if wants_json(args):
        print_json(entries)
    else:
        rows = [[e["service"], e["spiffe_id"], " AND ".join(e["selectors"])] for e in entries]
        print(table(["service", "spiffe id", "selectors"], rows))
    return OK
