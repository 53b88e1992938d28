# SPDX-License-Identifier: Apache-2.0
"""``everyhop log``: recorded decisions and changes, stored or as they happen; and forgetting a person."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any, Final

from everyhop.cli.arguments import add_output, add_state, admin
from everyhop.cli.log_export import add_export
from everyhop.cli.log_reading import add_filters, print_record, query_of
from everyhop.cli.log_schema import add_schema
from everyhop.cli.output import print_json, say, wants_json
from everyhop.cli.shadow_report import add_shadow
from everyhop.cli.verbs.log_proofs import TILES, add_proofs

if TYPE_CHECKING:
    from everyhop.control.local_link import LocalLink

_PAGE: Final = 500
_SILENCE_SECONDS: Final = 20.0
_RETRY_SECONDS: Final = 1.0
_SHOW: Final = """\
examples:
  everyhop log show --denied --since 15m
  everyhop log show --user alice@shop.example --limit 100
  everyhop log show --all --format ocsf --since 24h
  everyhop log show --before 4711           the records before that position
"""
_TAIL: Final = """\
examples:
  everyhop log tail --denied
  everyhop log tail --after 4711            from behind that position, nothing left out
"""
_FORGET: Final = """\
examples:
  everyhop log forget user:alice@shop.example --reason 'request of 2026-02-03'

What is sealed stays: the log goes on to name a pseudonym, which is nobody's from then on.  Whoever comes again gets another.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    noun = commands.add_parser("log", help="show or follow recorded decisions")
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    for name, help_text, run, epilog in (
        ("show", "recorded decisions, oldest first", _show, _SHOW),
        ("tail", "decisions as they happen", _tail, _TAIL),
    ):
        verb = _verb(verbs, name, help_text, epilog)
        add_filters(verb)
        verb.add_argument("--after", type=int, metavar="POSITION", help="only what stands behind it")
        verb.add_argument(
            *("-n", "--lines", "--limit"),
            dest="lines",
            type=int,
            default=20,
            help="how many of the newest (default: 20)",
        )
        if name == "show":
            verb.add_argument("--before", type=int, metavar="POSITION", help="only what stands before it")
            verb.add_argument("--until", metavar="TIME", help="as --since")
        verb.set_defaults(run=run)
    forget = _verb(verbs, "forget", "forget a person: pseudonyms stay, what they stand for goes", _FORGET)
    forget.add_argument("person", metavar="PERSON", help="user:NAME or address:ADDRESS")
    forget.add_argument("--reason", required=True, help="why; it is recorded, so name nobody in it")
    forget.set_defaults(run=_forget)
    add_schema(verbs)
    add_shadow(verbs)
    add_proofs(verbs)
    add_export(verbs, TILES)


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, epilog: str
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(
        name, help=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_state(verb)
    add_output(verb)
    return verb


def _show(args: argparse.Namespace) -> int:
    from everyhop.core.errors import InputError

    if args.before is not None and args.after is not None:
        raise InputError("name a position before or after which to look, not both")
    link, query = admin(args, timeout=60.0), query_of(args)
    if args.after is not None:
        _show_onward(args, link, query)
        return 0
    pages: list[dict[str, Any]] = []
    before, left = args.before, max(0, args.lines)
    while True:
        page = link.get("/v1/records", **query, before=before or None, limit=min(left, _PAGE))
        pages.append(page)
        left -= len(page["records"])
        before = page["before"]
        if left <= 0 or not page["more"]:
            break
    for page in reversed(pages):
        _print_page(args, page)
    if pages[-1]["more"] and before and args.lines:
        say(f"older ones: --before {before}")
    return 0


def _show_onward(args: argparse.Namespace, link: LocalLink, query: dict[str, object]) -> None:
    after, left = max(0, args.after), max(0, args.lines)
    while left > 0:
        page = link.get("/v1/records", **query, after=after, limit=min(left, _PAGE))
        _print_page(args, page)
        left -= len(page["records"])
        after = page["cursor"]
        if not page["more"]:
            return
    say(f"further ones: --after {after}")


def _print_page(args: argparse.Namespace, page: dict[str, Any]) -> None:
    for record, position in zip(page["records"], page["positions"], strict=True):
        print_record(args, record, position)


def _tail(args: argparse.Namespace) -> int:
    """Follow for ever; when the server goes away, go on behind the last position once it is back."""
    from everyhop.core.errors import Unavailable

    link, query = admin(args, timeout=_SILENCE_SECONDS), query_of(args)
    position = args.after
    if position is None:
        page = link.get("/v1/records", **query, limit=max(0, min(args.lines, 1000)))
        _print_page(args, page)
        position = page["cursor"]
    is_away = False
    query["since"] = None if args.after is None else query["since"]
    while True:
        try:
            for line in link.stream("/v1/records/stream", **query, after=position):
                if is_away:
                    is_away = False
                    say("the server is back; nothing was left out")
                if "record" in line:
                    print_record(args, line["record"], line["position"])
                position = line["position"]
        except Unavailable as error:
            if not is_away:
                say(f"{error.message}; waiting for it")
            is_away = True
        time.sleep(_RETRY_SECONDS)


def _forget(args: argparse.Namespace) -> int:
    answer = admin(args).post("/v1/log/forget", {"person": args.person, "reason": args.reason})
    if wants_json(args):
        print_json(answer)
    else:
        print(f"forgotten: {answer['forgotten']} is nobody's from now on")
    return 0
