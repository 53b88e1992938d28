# SPDX-License-Identifier: Apache-2.0
"""How records are asked for and printed by ``everyhop log show`` and ``log tail``.

Whatever a caller has put into a record: one record is one line, and every character of it is printable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.cli.output import paint, print_json, printable, wants_json
from everyhop.core.printable import escape_json_line

if TYPE_CHECKING:
    import argparse

CONTRACT: Final = (  # members that every line has, null where there is nothing to say
    *("id", "time", "caller", "target", "operation", "method", "path"),
    *("decision", "rule", "reason", "snapshot", "status"),
)
_NAMES: Final = (
    ("service", "only calls to this service"),
    ("caller", "only calls by this SPIFFE ID"),
    ("user", "only calls for this user (a pseudonym is taken as well)"),
    ("rule", "only decisions by this rule, e.g. 'deny[0]'"),
    ("operation", "only this operation, or verb of a change"),
    ("reason", "only this reason, e.g. no-rule"),
    ("point", "only what happened there: ingress, egress, edge, control or sdk"),
    ("api-key", "only calls with the API key of this public part"),
    ("address", "only outside clients at this address"),
    ("id", "only ids that begin so"),
)


def add_filters(verb: argparse.ArgumentParser) -> None:
    """Declare what narrows, and how to print."""
    for name, text in _NAMES:
        verb.add_argument(f"--{name}", metavar="TEXT" if name != "service" else "NAME", help=text)
    verb.add_argument("--denied", action="store_true", help="only refusals")
    verb.add_argument("--all", action="store_true", help="records of all kinds, not decisions only")
    verb.add_argument("--kind", action="append", metavar="KIND", help="records of this kind; may be repeated")
    verb.add_argument("--since", metavar="TIME", help="15m, 24h, or RFC 3339, e.g. 2026-01-31T09:00:00Z")
    verb.add_argument(
        "--format", choices=["table", "record", "ocsf"], help="table (default), record, or OCSF events"
    )
    verb.add_argument(
        "--pseudonyms", action="store_true", help="show what is stored in place of persons' names"
    )


def query_of(args: argparse.Namespace) -> dict[str, object]:
    """Return the parameters of a request; raises InputError for a time that is none."""
    return {
        **{
            name.replace("-", "_"): getattr(args, name.replace("-", "_"))
            for name, _ in _NAMES
        },
        "decision": "deny" if args.denied else None,
        "kind": args.kind or (None if args.all else "decision"),
        "since": moment_of(args.since),
        "until": moment_of(getattr(args, "until", None)),
        "pseudonyms": 1 if args.pseudonyms else None,
    }  # fmt: skip


def moment_of(text: str | None) -> str | None:
    """Return a time, or a time so long ago, as RFC 3339."""
    if text is None:
        return None
    from everyhop.cli.traffic import moment_before
    from everyhop.core.clock import rfc3339
    from everyhop.runtime.system import SystemClock

    return rfc3339(moment_before(text, SystemClock().now()))


def print_record(args: argparse.Namespace, record: dict[str, Any], position: int) -> None:
    """Print one record on one line."""
    form = args.format or ("json" if wants_json(args) else "table")
    if form == "json":
        print_json(dict.fromkeys(CONTRACT) | record, line=True)
    elif form == "record":
        print_json(record, line=True)
    elif form == "ocsf":
        print(_ocsf(record, position), flush=True)
    else:
        print(_row(record), flush=True)


def _ocsf(record: dict[str, Any], position: int) -> str:
    import msgspec

    from everyhop.auditlog import Record
    from everyhop.auditlog.ocsf import encode_event, event_of

    event = event_of(msgspec.convert(record, Record), index=position - 1)
    return escape_json_line(encode_event(event)).decode()


def _row(record: dict[str, Any]) -> str:
    decision = str(record.get("decision") or record.get("kind"))
    mark = paint(f"{decision:<5}", "green" if decision == "allow" else "red")
    call = f"{record.get('method') or record.get('operation') or 'handshake'} {record.get('path') or ''}"
    caller = (record.get("caller") or "-").rpartition("/")[2]
    why = " ".join(str(part) for part in (record.get("reason"), record.get("rule")) if part)
    via = (record.get("detail") or {}).get("via")  # asked about, not called
    asked = f" (asked over {via})" if via else ""
    rest = f"{caller} -> {record.get('target') or '-'} {call.strip()}{asked}  {why}  {record['id']}"
    return f"{record['time'][11:23]} {mark} {printable(rest)}"
