# SPDX-License-Identifier: Apache-2.0
"""``everyhop log export``: records out of the log by hand, and how the exports of the settings fare.

Other ways out of the log join here: see :class:`Way`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from everyhop.cli.arguments import add_settings, add_verb, admin
from everyhop.cli.exit_codes import FAILED, OK
from everyhop.cli.output import paint, print_json, printable, say, table, wants_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from everyhop.control.local_link import LocalLink
    from everyhop.exports import ExportSettings, Item, Sink

_EPILOG: Final = """\
examples:
  everyhop log export --jsonl records.jsonl --since 24h
  everyhop log export --tiles /srv/log              for any web server, what is new since the last time
  everyhop log export --to siem --after 120000      once more, to a receiver of the settings
  everyhop log export status
  everyhop log export resume hook                   after its receiver had answered 410

An export is recorded in the log before its first line is handed out.
exit codes: 0 · 1 not everything was delivered · 2 wrong arguments or settings · 4 no server
"""
_POLL_SECONDS: Final = 0.2
_TELL_EVERY: Final = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way out of the log: ``declare`` adds the option that names it, whose ``dest`` is not None when it is meant."""

    dest: str
    declare: Callable[[argparse._MutuallyExclusiveGroup], object]
    run: Callable[[argparse.Namespace], int]


def add_export(verbs: argparse._SubParsersAction[argparse.ArgumentParser], *further: Way) -> None:
    """Declare the command with its ways."""
    text = "hand records on: to a file, to a receiver of the settings; and the state of exports"
    ways = (*_WAYS, *further)

    def run(args: argparse.Namespace) -> int:
        if args.action is not None:
            return _resume(args) if args.action == "resume" else _status(args)
        chosen = next((way for way in ways if getattr(args, way.dest) is not None), None)
        return _status(args) if chosen is None else chosen.run(args)

    verb = add_verb(verbs, "export", run, _EPILOG, text)
    verb.add_argument(
        "action", nargs="?", choices=["status", "resume"], help="status (default), or resume NAME"
    )
    verb.add_argument("name", nargs="?", metavar="NAME", help="the export to resume")
    group = verb.add_mutually_exclusive_group()
    for way in ways:
        way.declare(group)
    verb.add_argument("--since", metavar="TIME", help="24h, 7d, or a time")
    verb.add_argument("--until", metavar="TIME", help="24h, 7d, or a time")
    verb.add_argument("--after", metavar="N", type=int, default=0, help="only records behind this number")
    verb.add_argument("--format", choices=["record", "ocsf", "cef"], help="of --jsonl (default: record)")
    add_settings(verb)


def _declare_jsonl(group: argparse._MutuallyExclusiveGroup) -> None:
    group.add_argument("--jsonl", metavar="FILE", type=Path, help="lines into a new file, 0600")


def _declare_to(group: argparse._MutuallyExclusiveGroup) -> None:
    group.add_argument("--to", metavar="NAME", help="a receiver of [[export]] in the settings")


def _resume(args: argparse.Namespace) -> int:
    from urllib.parse import quote

    from everyhop.core.errors import InputError

    if not args.name:
        raise InputError("resume which one?", hint="everyhop log export status")
    admin(args).post(f"/v1/exports/{quote(args.name, safe='')}/resume", {})
    say(f"{printable(args.name)} goes on where it stopped")
    return OK


def _status(args: argparse.Namespace) -> int:
    exports = admin(args).get("/v1/exports")["exports"]
    if wants_json(args):
        print_json({"exports": exports})
        return OK
    if not exports:
        print("no [[export]] in the settings")
        return OK
    print(render_exports(exports))
    return OK


def render_exports(exports: dict[str, dict[str, Any]]) -> str:
    """Return the exports as a table, and under it what is wrong."""
    rows = [[name, e["position"], e["behind"], _word(e), e["since"]] for name, e in exports.items()]
    lines = [table(["export", "position", "behind", "state", "since"], rows)]
    for name, export in exports.items():
        if export["last_error"]:
            lines.append(paint(f"{name}: {printable(export['last_error'])}", "red"))
        if export["disabled"]:
            lines.append(f"  everyhop log export resume {name}")
    return "\n".join(lines)


def _word(export: dict[str, Any]) -> str:
    if export["disabled"]:
        return "off"
    return "failing" if export["last_error"] else "well"


def _run_jsonl(args: argparse.Namespace) -> int:
    from everyhop.core.errors import Conflict
    from everyhop.exports import Format, JsonlSettings

    path = args.jsonl.absolute()
    if path.exists() or path.is_symlink():
        raise Conflict(f"{path} is there already", hint="name a new file")
    wanted = Format(args.format or "record")
    # One file, whatever its size: an export by hand is not put aside.
    settings = JsonlSettings(name="by-hand", format=wanted, path=path, max_bytes=2**62)
    return _deliver(args, settings, to=f"file {path.name}")


def _run_to(args: argparse.Namespace) -> int:
    from everyhop.cli.arguments import settings_of
    from everyhop.core.errors import InputError, NotFound

    found = {entry.name: entry for entry in settings_of(args).export}
    if args.to not in found:
        raise NotFound(f"no export {args.to[:80]!r} in the settings", hint=", ".join(found) or None)
    if args.format is not None:
        raise InputError("--format belongs to --jsonl; a receiver's form is in the settings")
    return _deliver(args, found[args.to], to=args.to)


def _deliver(args: argparse.Namespace, settings: ExportSettings, *, to: str) -> int:
    import asyncio

    from everyhop.cli.traffic import moment_before
    from everyhop.core.clock import rfc3339
    from everyhop.core.errors import EveryhopError
    from everyhop.runtime.exports import sink_of
    from everyhop.runtime.system import SystemClock

    clock = SystemClock()
    now = clock.now()
    since, until = (None if t is None else moment_before(t, now) for t in (args.since, args.until))
    span = {"since": since, "until": until}
    begun = admin(args).post(
        "/v1/exports",
        {
            "to": to,
            "format": settings.format.value,
            "after": args.after,
            **{name: rfc3339(at) for name, at in span.items() if at is not None},
        },
    )
    run = _Run(settings, sink_of(settings, origin=begun["origin"], clock=clock), begun["head"])
    try:
        asyncio.run(run.deliver(_items(args, begun, since, until, settings)))
    except (EveryhopError, OSError, TimeoutError) as error:
        message = error.message if isinstance(error, EveryhopError) else f"{type(error).__name__}: {error}"
        say(f"stopped: {printable(message)}")
        say(f"go on with: --after {run.done or args.after}")
    result = {"records": run.count, "last": run.done, "complete": run.is_complete, "record": begun["record"]}
    if wants_json(args):
        print_json(result)
    else:
        print(f"{run.count} records" + ("" if run.is_complete else ", not all"))
    return OK if run.is_complete else FAILED


def _items(
    args: argparse.Namespace,
    begun: dict[str, Any],
    since: datetime | None,
    until: datetime | None,
    settings: ExportSettings,
) -> Iterator[list[Item]]:
    """Yield what is asked for of the log as it was at the beginning, a page at a time."""
    from everyhop.auditlog import RecordFilter, decode_record
    from everyhop.exports import Item

    wanted = RecordFilter(since=since, until=until)
    link, after, head = admin(args, timeout=60.0), args.after, begun["head"]
    while after < head:
        lines = [(n, line.encode()) for n, line in _page(link, begun, after) if n <= head]
        if not lines:
            return
        after = lines[-1][0]
        page = [Item(index=n, record=decode_record(line), line=line) for n, line in lines]
        yield [i for i in page if wanted.matches(i.record) and settings.only.matches(i.record)]


def _page(link: LocalLink, begun: dict[str, Any], after: int) -> list[tuple[int, str]]:
    answer = link.get("/v1/log/lines", after=after, export=begun["record"])
    return [(number, line) for number, line in answer["lines"]]


class _Run:
    """One delivery with its progress."""

    def __init__(self, settings: ExportSettings, sink: Sink, head: int) -> None:
        self._settings = settings
        self._sink = sink
        self._head = head
        self._told = 0
        self.count = 0
        self.done = 0
        self.is_complete = False

    async def deliver(self, pages: Iterator[list[Item]]) -> None:
        last = 0
        try:
            for page in pages:
                for start in range(0, len(page), self._settings.batch):
                    part = page[start : start + self._settings.batch]
                    self.done = max(self.done, await self._bounded(self._sink.send(part)))
                    last = part[-1].index
                    self.count += len(part)
                    self._progress(last)
            await self._settle(last)
            self.is_complete = True
        finally:
            await self._sink.close()
            if self._told and sys.stderr.isatty():
                print(file=sys.stderr)

    async def _settle(self, last: int) -> None:
        """Wait for the confirmation of a receiver that gives it late."""
        import asyncio

        wait = getattr(self._settings, "window", self._settings.timeout) * 2
        async with asyncio.timeout(wait.total_seconds()):
            while self.done < last:  # it comes with time, and no event tells it
                await asyncio.sleep(_POLL_SECONDS)
                self.done = max(self.done, await self._sink.settle())

    async def _bounded(self, delivery: Any) -> int:
        import asyncio

        async with asyncio.timeout(self._settings.timeout.total_seconds()):
            return int(await delivery)

    def _progress(self, last: int) -> None:
        if sys.stderr.isatty() and self.count - self._told >= min(_TELL_EVERY, self._settings.batch):
            self._told = self.count
            print(f"\r{self.count} records, at {last} of {self._head}", end="", file=sys.stderr, flush=True)


_WAYS: Final = (
    Way(dest="jsonl", declare=_declare_jsonl, run=_run_jsonl),
    Way(dest="to", declare=_declare_to, run=_run_to),
)
