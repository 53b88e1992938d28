# SPDX-License-Identifier: Apache-2.0
"""``everyhop policy plan``: what a new policy would open and close, and which recorded calls it would answer otherwise."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everyhop.cli.arguments import add_output, add_policy, add_state, admin
from everyhop.cli.exit_codes import NARROWER, OK, WIDER
from everyhop.cli.output import paint, print_json, printable, wants_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.authz.difference import Plan
    from everyhop.policy.model import Snapshot

_EPILOG = """\
examples:
  everyhop policy plan everyhop.yaml                     against the policy in force
  everyhop policy plan new.yaml --policy old.yaml        two texts, nothing needs to be up
  everyhop policy plan everyhop.yaml --since 24h         and replay the last day's decisions

exit codes: 0 no call is answered otherwise · 10 changes, none opens anything · 11 access may widen
            (2 the text is wrong or fails its own tests)
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    verb = verbs.add_parser(
        "plan",
        aliases=["diff"],
        help="what a new policy would open and close, call by call",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("new", metavar="NEW", type=Path, help="the new policy: a file or a directory")
    add_policy(verb, what="compare with this policy instead of the one in force")
    replayed = verb.add_mutually_exclusive_group()
    replayed.add_argument("--since", metavar="DURATION", help="replay the decisions of the last 24h, 30m …")
    replayed.add_argument("--replay", metavar="N", type=_count, help="replay the last N recorded decisions")
    add_output(verb)
    add_state(verb)
    verb.set_defaults(run=_run)


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 10**9:
        raise argparse.ArgumentTypeError("a number from 1 to 1000000000")
    return int(text)


def _run(args: argparse.Namespace) -> int:
    from everyhop.authz.difference import compare, describe, render
    from everyhop.policy import decode_snapshot
    from everyhop.runtime.policy_files import PolicyFiles, PureRules

    files = PolicyFiles(args.new).read()
    new = checked(PureRules(), files)
    if args.policy is not None:
        old = PureRules().parse(PolicyFiles(args.policy).read())
    else:
        old = decode_snapshot(admin(args).get_bytes("/v1/snapshot"))
    plan = compare(old, new)
    replayed = replay(args, files) if args.since is not None or args.replay is not None else None
    if wants_json(args):
        print_json(describe(plan) | ({} if replayed is None else {"replay": replayed}))
    else:
        print_lines({"mark": mark.value, "line": line} for mark, line in render(plan))
        if replayed is not None:
            print_replay(replayed)
    return code_of(plan)


_COLOURS = {"title": "bold", "wider": "red", "narrower": "yellow", "detail": "dim"}


def code_of(plan: Plan) -> int:
    """Return the exit code that tells what a plan means."""
    return OK if plan.is_same else WIDER if plan.is_wider else NARROWER


def checked(rules: Any, files: Mapping[str, bytes]) -> Snapshot:  # PureRules, which is imported late
    """Return the candidate; raises PolicyError where it is wrong or fails its own tests."""
    from everyhop.control.policy_in_force import check_candidate

    return check_candidate(rules, files, trust_domain=None)


def replay(args: argparse.Namespace, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what the server's records say of a candidate; raises Unavailable when the answer is cut short."""
    from everyhop.core.durations import parse_duration
    from everyhop.core.errors import Unavailable

    since = None if args.since is None else datetime.now(UTC) - parse_duration(args.since)
    message = {
        "files": texts_of(files),
        "since": None if since is None else since.isoformat(),
        "last": args.replay,
    }
    steps = admin(args, timeout=120.0).post_lines("/v1/policy/replay", message)
    last = steps[-1] if steps else {}
    if "result" not in last:
        raise Unavailable(f"the replay did not come to its end: {last.get('error', 'the server ended it')}")
    return dict(last["result"])


def texts_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return policy files as they are sent."""
    return {name: content.decode("utf-8", "surrogateescape") for name, content in files.items()}


def print_lines(lines: Iterable[Mapping[str, str]]) -> None:
    """Print the lines of a plan."""
    for line in lines:
        text = printable(line["line"])
        print(paint(text, _COLOURS[line["mark"]]) if line["mark"] in _COLOURS else text)


def print_replay(tally: Mapping[str, Any]) -> None:
    """Print what became of the recorded calls."""
    counts = tally["counts"]
    print(paint(f"replay of {tally['records']} recorded decisions: {tally['flips']} would flip", "bold"))
    for edge in tally["edges"]:
        if edge["outcome"] == "unknown":
            continue
        sign, colour = ("+", "red") if edge["outcome"] == "gained" else ("-", "yellow")
        text = (
            f"  {sign} {edge['count']} x {edge['caller']} -> {edge['service']}.{edge['operation']} "
            f"({edge['reason']})   everyhop why {edge['example']}"
        )
        print(paint(printable(text), colour))
    if counts["already"]:
        print(
            f"  {counts['already']} were decided under an older policy; the one in force answers as this one would"
        )
    if counts["foreign"]:
        print(f"  {counts['foreign']} were refused by something else than the policy (tokens, bad requests)")
    if counts["unknown"]:
        print(
            paint(
                f"  {counts['unknown']} CANNOT BE REPLAYED, for the facts that count were not recorded:",
                "yellow",
            )
        )
        for edge in tally["edges"]:
            if edge["outcome"] == "unknown":
                text = f"    {edge['count']} x {edge['caller']} -> {edge['service']}.{edge['operation']} ({edge['reason']})"
                print(printable(text))
    if tally["unreadable"]:
        print(paint(f"  {tally['unreadable']} records could not be read as calls", "yellow"))
    if tally["others"]:
        print(f"  {tally['others']} more calls at edges beyond those shown")
