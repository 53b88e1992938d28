# SPDX-License-Identifier: Apache-2.0
"""``everyhop detect`` and ``everyhop findings``: how much is too much, who is near it, and what was found."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from everyhop.cli.arguments import add_policy, add_verb, admin
from everyhop.cli.exit_codes import OK
from everyhop.cli.output import paint, print_json, printable, table, wants_json

if TYPE_CHECKING:
    from everyhop.policy.model import Snapshot

_SUBJECTS: Final = "a service, a SPIFFE ID, user:NAME, key:LOOKUP or address:IP"
_STATUS: Final = """\
examples:
  everyhop detect status
  everyhop detect status -o json
"""
_SHOW: Final = """\
examples:
  everyhop detect show orders
  everyhop detect show address:203.0.113.7
"""
_TEST: Final = """\
A rehearsal: at which of so many calls the policy would alert or block.  Nothing is counted anywhere.

examples:
  everyhop detect test orders --calls 600 --outcome denied
  everyhop detect test user:alice --calls 600 --outcome allowed --over 10m --policy new.yaml
"""
_REPLAY: Final = """\
What the chapter `detect` of a policy would have found in what was recorded, and whom it would have blocked.

examples:
  everyhop detect replay --since 24h                       the policy in force
  everyhop detect replay --since 7d --policy new.yaml      another one
"""
_FINDINGS: Final = """\
examples:
  everyhop findings --since 24h
  everyhop findings --subject address:203.0.113.7 -o json
"""
_COLOURS: Final = {"blocked": "red", "quarantined": "red", "failed": "red", "alert": "yellow"}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    noun = commands.add_parser("detect", help="thresholds, counters, and what another policy would find")
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    add_verb(verbs, "status", _status, _STATUS, "thresholds in force, and how far detection is")
    show = add_verb(verbs, "show", _show, _SHOW, "the counter of one subject")
    show.add_argument("subject", metavar="SUBJECT", help=_SUBJECTS)
    test = add_verb(verbs, "test", _test, _TEST, "when a policy would speak of so many calls")
    test.add_argument("subject", metavar="SUBJECT", help=_SUBJECTS)
    test.add_argument("--calls", type=int, default=500, metavar="N", help="how many (default: 500)")
    test.add_argument(
        "--over", default="5m", metavar="DURATION", help="evenly spread over this (default: 5m)"
    )
    test.add_argument(
        "--outcome",
        choices=["allowed", "denied", "failed", "undeclared", "ambiguous"],
        default="denied",
        help="how each ends (default: denied)",
    )
    add_policy(test, what="this policy instead of the one in force; nothing needs to be up")
    replay = add_verb(
        verbs, "replay", _replay, _REPLAY, "what a policy would have found in what was recorded"
    )
    replay.add_argument("--since", required=True, metavar="DURATION", help="24h, 30m …")
    add_policy(replay, what="this policy instead of the one in force")
    findings = add_verb(commands, "findings", _findings, _FINDINGS, "what detection found")
    findings.add_argument("--since", default="24h", metavar="DURATION", help="24h, 30m … (default: 24h)")
    findings.add_argument("--subject", metavar="SUBJECT", help=f"only of {_SUBJECTS}")
    findings.add_argument("--detector", metavar="NAME", help="only of one, e.g. rate-anomaly")
    findings.add_argument(
        "-n", "--lines", type=int, default=100, help="how many of the newest (default: 100)"
    )


def _limits(name: str, limits: dict[str, Any]) -> list[object]:
    count = limits["count"] if isinstance(limits["count"], str) else ", ".join(limits["count"])
    seconds = limits["block_seconds"]
    return [
        name,
        limits["alert"] or "never",
        limits["block"] or "never",
        f"{seconds}s" if limits["block"] else "-",
        count,
        limits["expected_rate"] or "-",
    ]


def _status(args: argparse.Namespace) -> int:
    answer = admin(args).get("/v1/detect")
    if wants_json(args):
        print_json(answer)
        return OK
    rows = [_limits(name, limits) for name, limits in {**answer["limits"], **answer["per_service"]}.items()]
    print(table(["who", "alert", "block", "for", "counts", "expected"], rows))
    print(f"\nwithin {answer['window_seconds']:g} seconds; mode {answer['mode']}")
    if answer["exempt"]:
        print(printable(f"never blocked: {', '.join(answer['exempt'])}"))
    where = "here" if answer["leading"] else "by another server, or not yet"
    behind = answer["head"] - answer["position"]
    print(f"watched {where}: {answer['position']} of {answer['head']} records, {behind} behind")
    print(f"detectors: {', '.join(answer['detectors']) or 'none'}; off: {', '.join(answer['off']) or 'none'}")
    for name, words in (
        ("degraded", "shared counters do not answer: this server counts alone"),
        ("evicted", "counters were forgotten for want of room"),
        ("untold", "findings were too many at once to be told"),
    ):
        if answer[name]:
            print(paint(f"{name}: {answer[name]}: {words}", "yellow"))
    return OK


def _show(args: argparse.Namespace) -> int:
    answer = admin(args).get("/v1/detect/subject", subject=args.subject)
    if wants_json(args):
        print_json(answer)
        return OK
    limits = answer["limits"]
    counts = limits["count"] if isinstance(limits["count"], str) else ", ".join(limits["count"])
    print(printable(answer["subject"]))
    print(f"  {answer['count']} calls that count ({counts}) within the window")
    print(f"  alert at {limits['alert'] or 'never'}{' (told)' if answer['alerted'] else ''}")
    print(f"  block at {limits['block'] or 'never'}{', but exempt' if answer['exempt'] else ''}")
    if answer["blocked"]:
        print(paint(f"  blocked until {answer['blocked_until'] or 'it is lifted'}", "red"))
    elif answer["counting_again_in"]:
        print(f"  counts again in {answer['counting_again_in']:.0f} seconds")
    return OK


def _test(args: argparse.Namespace) -> int:
    from everyhop.anomaly.observation import Outcome
    from everyhop.anomaly.trial import rehearse
    from everyhop.control.response_orders import named
    from everyhop.core.durations import format_duration, parse_duration

    snapshot = _snapshot(args)
    subject = named(args.subject, snapshot)
    over = parse_duration(args.over)
    found = rehearse(snapshot, subject, outcome=Outcome(args.outcome), calls=args.calls, over=over)
    if wants_json(args):
        shown = [
            {"call": one.call, "after_seconds": one.after.total_seconds(), "answer": one.answer.value, "title": one.title}
            for one in found
        ]  # fmt: skip
        print_json({"subject": str(subject), "calls": args.calls, "spoken": shown})
        return OK
    print(printable(f"{args.calls} {args.outcome} calls of {subject} within {args.over}:"))
    for one in found:
        answer = paint(f"{one.answer.value:<11}", _COLOURS.get(one.answer.value, "dim"))
        print(f"  call {one.call:>6}  after {format_duration(one.after):<7} {answer} {printable(one.title)}")
    if not found:
        print("  nothing is found")
    return OK


def _snapshot(args: argparse.Namespace) -> Snapshot:
    from everyhop.policy import decode_snapshot
    from everyhop.runtime.policy_files import PolicyFiles, PureRules

    if args.policy is not None:
        return PureRules().parse(PolicyFiles(Path(args.policy)).read())
    return decode_snapshot(admin(args).get_bytes("/v1/snapshot"))


def _since(text: str) -> str:
    from everyhop.core.durations import parse_duration

    return (datetime.now(UTC) - parse_duration(text)).isoformat()


def _replay(args: argparse.Namespace) -> int:
    from everyhop.core.errors import Unavailable

    message: dict[str, Any] = {"since": _since(args.since)}
    if args.policy is not None:
        from everyhop.runtime.policy_files import PolicyFiles

        files = PolicyFiles(args.policy).read()
        message["files"] = {name: data.decode("utf-8", "surrogateescape") for name, data in files.items()}
    steps = admin(args, timeout=300.0).post_lines("/v1/detect/replay", message)
    last = steps[-1] if steps else {}
    if "result" not in last:
        raise Unavailable(f"the replay did not come to its end: {last.get('error', 'the server ended it')}")
    result = last["result"]
    if wants_json(args):
        print_json(result)
        return OK
    total = sum(entry["count"] for entry in result["counts"])
    print(paint(f"{result['records']} records: {total} findings, {len(result['blocked'])} blocked", "bold"))
    print(
        table(
            ["detector", "answer", "count"],
            [[c["detector"], c["answer"], c["count"]] for c in result["counts"]],
        )
    )
    for one in result["findings"]:
        answer = paint(f"{one['answer']:<11}", _COLOURS.get(one["answer"], "dim"))
        print(f"{one['time'][:19]} {answer} {printable(one['subject'])}  {printable(one['title'])}")
    if result["left_out"]:
        print(f"{result['left_out']} more are not shown")
    return OK


def _findings(args: argparse.Namespace) -> int:
    answer = admin(args).get(
        "/v1/findings",
        since=_since(args.since),
        subject=args.subject,
        detector=args.detector,
        limit=args.lines,
    )
    for one in answer["findings"]:
        if wants_json(args):
            print_json(one, line=True)
            continue
        mark = paint(f"{one['answer'] or '-':<11}", _COLOURS.get(one["answer"], "dim"))
        text = f"{one['detector']}: {one['subject'] or '-'}: {one.get('title', '')}  {one['id']}"
        print(f"{one['time'][:19]} {mark} {printable(text)}")
    return OK
