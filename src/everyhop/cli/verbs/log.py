# SPDX-License-Identifier: Apache-2.0
"""``everyhop log``: recorded decisions, stored or as they happen."""

from __future__ import annotations

import argparse
import time
from typing import Any, Final

from everyhop.cli.arguments import add_output, add_state, admin
from everyhop.cli.log_export import add_export
from everyhop.cli.log_schema import add_schema
from everyhop.cli.output import paint, print_json, printable, wants_json
from everyhop.cli.shadow_report import add_shadow
from everyhop.cli.verbs.log_proofs import TILES, add_proofs

_POLL_SECONDS: Final = 0.25
_PAGE: Final = 500
_CONTRACT: Final = (  # members that every line has, null where there is nothing to say
    *("id", "time", "caller", "target", "operation", "method", "path"),
    *("decision", "rule", "reason", "snapshot", "status"),
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    noun = commands.add_parser("log", help="show or follow recorded decisions")
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    for name, help_text in (
        ("show", "recorded decisions, oldest first"),
        ("tail", "decisions as they happen"),
    ):
        verb = verbs.add_parser(name, help=help_text)
        add_state(verb)
        add_output(verb)
        verb.add_argument("--service", help="only calls to this service")
        verb.add_argument("--caller", help="only calls by this SPIFFE ID")
        verb.add_argument("--rule", help="only decisions by this rule, e.g. 'deny[0]'")
        verb.add_argument("--denied", action="store_true", help="only refusals")
        verb.add_argument("--all", action="store_true", help="policy and key changes as well")
        verb.add_argument("--since", metavar="TIME", help="RFC 3339, e.g. 2026-01-31T09:00:00Z")
        verb.add_argument("-n", "--lines", type=int, default=20, help="how many of the newest (default: 20)")
        verb.set_defaults(run=_tail if name == "tail" else _show)
    add_schema(verbs)
    add_shadow(verbs)
    add_proofs(verbs)
    add_export(verbs, TILES)


def _query(args: argparse.Namespace) -> dict[str, object]:
    return {
        "service": args.service,
        "caller": args.caller,
        "rule": args.rule,
        "decision": "deny" if args.denied else None,
        "kind": None if args.all else "decision",
        "since": args.since,
    }


def _print(args: argparse.Namespace, record: dict[str, Any]) -> None:
    if wants_json(args):
        print_json(dict.fromkeys(_CONTRACT) | record, line=True)
        return
    decision = str(record.get("decision") or record.get("kind"))
    mark = paint(f"{decision:<5}", "green" if decision == "allow" else "red")
    call = (
        f"{record.get('method') or record.get('operation') or 'handshake'} {record.get('path') or ''}".strip()
    )
    caller = (record.get("caller") or "-").rpartition("/")[2]
    why = " ".join(str(part) for part in (record.get("reason"), record.get("rule")) if part)
    via = (record.get("detail") or {}).get("via")  # asked about, not called
    asked = f" (asked over {via})" if via else ""
    rest = f"{caller} -> {record.get('target') or '-'} {call}{asked}  {why}  {record['id']}"
    print(f"{record['time'][11:23]} {mark} {printable(rest)}", flush=True)


def _newest(args: argparse.Namespace) -> tuple[list[dict[str, Any]], int]:
    page = admin(args).get("/v1/records", **_query(args), limit=max(0, min(args.lines, 1000)))
    return page["records"], page["cursor"]


def _show(args: argparse.Namespace) -> int:
    for record in _newest(args)[0]:
        _print(args, record)
    return 0


def _tail(args: argparse.Namespace) -> int:
    records, cursor = _newest(args)
    while True:
        for record in records:
            _print(args, record)
        if len(records) < _PAGE:
            time.sleep(_POLL_SECONDS)
        page = admin(args).get("/v1/records", **_query(args), after=cursor, limit=_PAGE)
        records, cursor = page["records"], page["cursor"]
