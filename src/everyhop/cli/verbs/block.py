# SPDX-License-Identifier: Apache-2.0
"""``everyhop block``, ``unblock``, ``quarantine``, ``unquarantine``, ``blocks``: answers to an attack."""

from __future__ import annotations

import argparse
from typing import Any, Final

from everyhop.cli.arguments import add_verb, admin
from everyhop.cli.exit_codes import FAILED, OK
from everyhop.cli.output import print_json, printable, say, table, wants_json

_WAIT_SECONDS: Final = 5.0

_SUBJECTS: Final = """\
SUBJECT is the name of a service, a SPIFFE ID, user:NAME, key:LOOKUP (`everyhop apikey list`) or address:IP.
"""
_BLOCK: Final = (
    """\
Every call of SUBJECT is refused with 429 and the code BLOCKED, at every enforcement point, on open connections too,
until the time is over or somebody lifts it.  What is in force is never shortened by another block.

"""
    + _SUBJECTS
    + """
examples:
  everyhop block orders --for 1h --reason 'calls nobody declared, ticket 812'
  everyhop block user:mallory@shop.example --for 24h --reason 'password sprayed'
  everyhop block key:k7Qm2xPa --reason 'seen in a public repository'
  everyhop block address:203.0.113.7 --for 15m --reason flood

exit codes: 0 every agent has confirmed · 1 blocked, but an agent has not confirmed in time · 5 may not be blocked
"""
)
_UNBLOCK: Final = """\
examples:
  everyhop unblock orders --reason 'fixed in 1.4.2'
  everyhop unblock address:203.0.113.7 --reason 'it was our own probe'

exit codes: 0 every agent has confirmed · 1 lifted, but an agent has not confirmed in time · 6 was not blocked
"""
_QUARANTINE: Final = """\
The identity of the workload ends: no SVID is served, nothing is issued to it, its tokens are revoked, its connections
are cut, and all its calls are refused.  Its process goes on, so that it can be looked at; `everyhop unquarantine`
brings everything back without a restart.  All instances of a service share one identity: name the service.

examples:
  everyhop quarantine orders --reason 'its key was copied'
  everyhop quarantine spiffe://shop.example/service/orders --for 2h --reason 'under examination'

exit codes: 0 every agent has confirmed · 1 ordered, but an agent has not confirmed in time
"""
_LIST: Final = """\
examples:
  everyhop blocks
  everyhop blocks -o json
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    block = add_verb(
        commands, "block", _block, _BLOCK, "refuse every call of a service, user, key or address"
    )
    quarantine = add_verb(
        commands, "quarantine", _quarantine, _QUARANTINE, "end identity, tokens and connections of a workload"
    )
    for parser in (block, quarantine):
        parser.add_argument(
            "--for", dest="duration", metavar="DURATION", help="e.g. 15m, 1h, 7d (default: until lifted)"
        )
        parser.add_argument("--force", action="store_true", help="even one that the policy exempts")
    unblock = add_verb(commands, "unblock", _unblock, _UNBLOCK, "lift a block or a quarantine")
    unquarantine = add_verb(
        commands, "unquarantine", _unblock, _UNBLOCK, "the same: lift a quarantine or a block"
    )
    for parser in (block, quarantine, unblock, unquarantine):
        parser.add_argument(
            "subject", metavar="SUBJECT", help="a service, a SPIFFE ID, user:…, key:… or address:…"
        )
        parser.add_argument(
            "--reason", required=True, metavar="TEXT", help="recorded, and shown by `everyhop why`"
        )
        parser.add_argument(
            "--wait",
            type=float,
            default=_WAIT_SECONDS,
            metavar="SECONDS",
            help=f"how long to wait for every agent (default: {_WAIT_SECONDS:g})",
        )
    add_verb(commands, "blocks", _list, _LIST, "who is blocked, by whom, why and until when")


def _block(args: argparse.Namespace) -> int:
    return _order(args, "block")


def _quarantine(args: argparse.Namespace) -> int:
    return _order(args, "quarantine")


def _order(args: argparse.Namespace, mode: str) -> int:
    from everyhop.core.durations import parse_duration

    seconds = None if args.duration is None else parse_duration(args.duration).total_seconds()
    message = {
        "subject": args.subject,
        "reason": args.reason,
        "mode": mode,
        "seconds": seconds,
        "wait_seconds": args.wait,
        "force": args.force,
    }
    return _tell(args, admin(args, timeout=args.wait + 10).post("/v1/blocks", message), done=f"{mode}ed")


def _unblock(args: argparse.Namespace) -> int:
    message = {"subject": args.subject, "reason": args.reason, "wait_seconds": args.wait}
    answer = admin(args, timeout=args.wait + 10).post("/v1/unblock", message)
    return _tell(args, answer, done="lifted")


def _tell(args: argparse.Namespace, answer: dict[str, Any], *, done: str) -> int:
    block, lagging = answer["block"], answer["lagging"]
    if wants_json(args):
        print_json(answer)
    else:
        mode = "quarantined" if block["mode"] == "quarantine" else "blocked"
        words = f"{block['subject']} is {mode} until {block['until'] or 'it is lifted'}"
        if done == "lifted":
            words = f"{block['subject']} is not {mode} any more"
        print(printable(words))
        confirmed = answer["agents"] - len(lagging)
        print(f"confirmed by {confirmed} of {answer['agents']} agents after {answer['milliseconds']:g} ms")
        if done != "lifted":
            _tell_touched(answer, block)
    if lagging:
        say(
            f"not confirmed yet: {', '.join(map(printable, lagging))}; it takes effect there when it is reached"
        )
    return FAILED if lagging else OK


def _tell_touched(answer: dict[str, Any], block: dict[str, Any]) -> None:
    """Say what works no more, so that nobody is surprised by it."""
    if answer["calls"]:
        print(f"its calls are refused: {', '.join(map(printable, answer['calls']))}")
    if block["mode"] == "quarantine" and answer["called_by"]:
        print(f"calls to it fail: {', '.join(map(printable, answer['called_by']))}")


def _list(args: argparse.Namespace) -> int:
    answer = admin(args).get("/v1/blocks")
    if wants_json(args):
        print_json(answer)
        return OK
    rows = [
        [b["subject"], b["mode"], b["since"], b["until"] or "until lifted", b["by"], b["reason"]]
        for b in answer["blocks"]
    ]
    print(table(["subject", "mode", "since", "until", "by", "reason"], rows))
    return OK
