# SPDX-License-Identifier: Apache-2.0
"""``everyhop can``: may this caller do this there, and why."""

from __future__ import annotations

import argparse
from pathlib import Path

from everyhop.cli.arguments import add_output, add_policy, add_state, admin
from everyhop.cli.exit_codes import DENIED, OK
from everyhop.cli.output import print_json, wants_json

_EPILOG = """\
examples:
  everyhop can storefront 'GET /orders/7' orders
  everyhop can spiffe://shop.example/service/orders 'POST /v1/charges' payments --policy everyhop.yaml
  everyhop can orders tcp ledger
  everyhop can storefront 'GET /orders/7' orders --facts '{"user": {"id": "alice", "roles": ["clerk"]}}'

exit codes: 0 allowed · 3 denied
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "can",
        help="may this caller do this there? with the reason",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("caller", metavar="FROM", help="a service, or a SPIFFE ID")
    parser.add_argument("call", metavar="CALL", help="'METHOD /path', or tcp")
    parser.add_argument("target", metavar="SERVICE")
    parser.add_argument(
        "--facts",
        metavar="JSON",
        help="what is known of the call, with the keys of a policy test: user, at, headers, source_ip, device, resource",
    )
    add_policy(
        parser,
        what="decide by this policy instead of the one in force (default: ./everyhop.yaml when nothing is up)",
    )
    add_state(parser)
    add_output(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from everyhop.authz import Engine
    from everyhop.core.errors import InputError, Unavailable
    from everyhop.policy import OUTSIDE, decode_snapshot
    from everyhop.policy.facts_text import parse_facts
    from everyhop.runtime.policy_files import PolicyFiles, PureRules

    if args.policy is not None:
        snapshot = PureRules().parse(PolicyFiles(args.policy).read())
    else:
        try:
            snapshot = decode_snapshot(admin(args).get_bytes("/v1/snapshot"))
        except Unavailable:
            if not Path("everyhop.yaml").exists():
                raise
            snapshot = PureRules().parse(PolicyFiles(Path("everyhop.yaml")).read())
    if args.caller == OUTSIDE or args.caller.startswith("spiffe:"):
        caller = args.caller
    elif args.caller in snapshot.services:
        caller = str(snapshot.services[args.caller].spiffe_id)
    else:
        caller = f"spiffe://{snapshot.trust_domain}/service/{args.caller}"
    engine = Engine(snapshot)
    context = None if args.facts is None else parse_facts(args.facts, snapshot)
    if args.call == "tcp":
        explanation = engine.explain_tcp(caller=caller, target=args.target, context=context)
    else:
        method, space, path = args.call.partition(" ")
        if not space:
            raise InputError(
                f"not a call: {args.call!r}", hint="write 'METHOD /path', e.g. 'GET /orders', or tcp"
            )
        explanation = engine.explain(
            caller=caller, target=args.target, method=method, path=path, context=context
        )
    if wants_json(args):
        print_json(explanation.to_dict())
    else:
        print(explanation.render())
    return OK if explanation.decision.is_allowed else DENIED
