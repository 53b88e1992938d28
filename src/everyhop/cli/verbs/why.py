# SPDX-License-Identifier: Apache-2.0
"""``everyhop why``: the reason of a recorded decision, or of a process without an identity."""

from __future__ import annotations

import argparse
from urllib.parse import quote

from everyhop.cli.arguments import add_output, add_state, admin, agent
from everyhop.cli.exit_codes import DENIED, OK
from everyhop.cli.output import print_json, printable, wants_json

_EPILOG = """\
examples:
  everyhop why 3f0c9c1e-…        the id in the refusal's body, header or in the log
  everyhop why --pid 4711        which identity this process has, or why it has none
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "why",
        help="why a call was decided as it was, or why a process has no identity",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("id", metavar="DECISION_ID", nargs="?")
    parser.add_argument("--pid", type=int, help="explain the identity of this process")
    add_state(parser)
    add_output(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from everyhop.core.errors import InputError

    if (args.id is None) == (args.pid is None):
        raise InputError("name a decision id, or a process with --pid")
    if args.pid is not None:
        answer = agent(args).get("/v1/why", pid=args.pid)
        if wants_json(args):
            print_json(answer)
        else:
            print(answer["text"])
        return OK if answer["entitled"] else DENIED
    answer = admin(args).get(f"/v1/records/{quote(args.id, safe='')}")
    if wants_json(args):
        print_json(answer)
        return OK
    record = answer["record"]
    print(f"decision   {record['id']}  {record['time']}")
    for name in (
        "point",
        "decision",
        "reason",
        "rule",
        "caller",
        "target",
        "operation",
        "method",
        "path",
        "status",
        "snapshot",
    ):
        if record.get(name) is not None:
            print(f"{name:<10} {printable(record[name])}")
    for other in answer.get("also", ()):
        said = f"{other.get('decision')} by {other['point']} of {other.get('target')}: {other.get('reason')}"
        print(f"{'also':<10} {printable(said)}  {other['id']}")
    if answer.get("text"):
        print()
        print(answer["text"])
    return OK
