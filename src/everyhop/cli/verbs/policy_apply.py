# SPDX-License-Identifier: Apache-2.0
"""``everyhop policy apply``, ``pending``, ``approve`` and ``refuse``: how a policy comes into force, and who said so."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everyhop.cli.arguments import add_output, add_state, admin
from everyhop.cli.exit_codes import OK, WIDER
from everyhop.cli.output import print_json, printable, say, wants_json
from everyhop.cli.verbs.policy_plan import print_lines, texts_of
from everyhop.core.errors import Conflict

if TYPE_CHECKING:
    from everyhop.control.local_link import LocalLink

_EPILOG = """\
examples:
  everyhop policy apply                       shows what opens, and asks
  everyhop policy apply --accept 5f0c…        exactly the policy that was looked at
  everyhop policy apply --yes                 whatever it opens

exit codes: 0 in force, or waiting for another person · 11 access widens and nobody confirmed it
            2 the text is wrong or fails its own tests · 5 another policy than the accepted one
"""
_TIMEOUT = 120.0


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verbs."""
    verb = verbs.add_parser(
        "apply",
        help="put this policy in force (a bad one changes nothing; a wider one is asked about)",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("policy", metavar="FILE|DIR", type=Path, nargs="?", help="default: ./everyhop.yaml")
    confirmed = verb.add_mutually_exclusive_group()
    confirmed.add_argument("--yes", action="store_true", help="also if it lets more in")
    confirmed.add_argument(
        "--accept",
        metavar="HASH",
        help="also if it lets more in, if this is its hash (`policy plan -o json`: after)",
    )
    add_output(verb)
    add_state(verb)
    verb.set_defaults(run=_apply)
    for name, text, run in (
        ("pending", "the policy that waits for approval, and what it would change", _pending),
        ("approve", "put the policy that waits in force", _approve),
        ("refuse", "drop the policy that waits", _refuse),
    ):
        verb = verbs.add_parser(name, help=text)
        if run is not _pending:
            verb.add_argument("hash", metavar="HASH", help="its hash, or the first 16 digits")
        verb.add_argument(
            "--socket",
            metavar="FILE",
            type=Path,
            help="the approval socket, for approvers (default: the owner's)",
        )
        add_output(verb)
        add_state(verb)
        verb.set_defaults(run=run)


def _apply(args: argparse.Namespace) -> int:
    from everyhop.runtime.policy_files import PolicyFiles

    source = PolicyFiles((args.policy or Path("everyhop.yaml")).absolute())
    files = texts_of(source.read())
    link = admin(args, timeout=_TIMEOUT)
    planned = link.post("/v1/policy/plan", {"files": files, "source": source.name})
    accept = _confirmed(args, planned)
    message = {
        "files": files,
        "source": source.name,
        "apply": True,
        "accept": accept,
        "base": planned["plan"]["before"],
    }
    if planned["plan"]["wider"] and accept is None:
        return _not_confirmed(args, link, message, planned["plan"])
    answer = link.post("/v1/policy", message)
    if wants_json(args):
        print_json(answer | {"plan": planned["plan"]})
    elif answer["applied"]:
        print(f"in force: snapshot {answer['snapshot'][:16]}")
    else:
        print(f"waits for approval: everyhop policy approve {answer['pending']}")
    return OK


def _not_confirmed(
    args: argparse.Namespace, link: LocalLink, message: dict[str, Any], plan: dict[str, Any]
) -> int:
    """Say that nothing was applied; where nobody could be asked, the server refuses it, which is on record."""
    if not _is_asked(args):
        with suppress(Conflict):
            link.post("/v1/policy", message)
    if wants_json(args):
        print_json({"applied": False, "plan": plan})
    say(f"not applied: it lets more in. To accept exactly this: --accept {plan['after']}")
    return WIDER


def _is_asked(args: argparse.Namespace) -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and not wants_json(args)


def _confirmed(args: argparse.Namespace, planned: dict[str, Any]) -> str | None:
    """Return the hash that is accepted, or None where nobody accepts what would open."""
    plan = planned["plan"]
    if args.accept is not None:
        return str(args.accept)
    if not plan["wider"]:
        return None
    if not wants_json(args):
        print_lines(planned["lines"])
    if args.yes:
        return str(plan["after"])
    if not _is_asked(args):
        return None
    print("Put it in force? It lets more in. [y/N] ", end="", flush=True)
    return str(plan["after"]) if sys.stdin.readline().strip().lower() in {"y", "yes"} else None


def _link(args: argparse.Namespace) -> LocalLink:
    from everyhop.control.local_link import LocalLink

    return admin(args, timeout=_TIMEOUT) if args.socket is None else LocalLink(args.socket, timeout=_TIMEOUT)


def _pending(args: argparse.Namespace) -> int:
    pending = _link(args).get("/v1/policy/pending")["pending"]
    if wants_json(args):
        print_json({"pending": pending})
        return OK
    if pending is None:
        print("no policy waits for approval")
        return OK
    print(
        f"proposed by {printable(pending['proposer'])} at {pending['at']} from {printable(pending['source'])}"
    )
    print_lines(pending["lines"])
    print(f"everyhop policy approve {pending['snapshot']}")
    return OK


def _approve(args: argparse.Namespace) -> int:
    answer = _link(args).post("/v1/policy/approve", {"hash": args.hash})
    if wants_json(args):
        print_json(answer)
    else:
        print(f"in force: snapshot {answer['snapshot'][:16]}")
    return OK


def _refuse(args: argparse.Namespace) -> int:
    answer = _link(args).post("/v1/policy/refuse", {"hash": args.hash})
    if wants_json(args):
        print_json(answer)
    else:
        print("refused; the policy in force stays")
    return OK
