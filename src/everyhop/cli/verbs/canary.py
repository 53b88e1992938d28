# SPDX-License-Identifier: Apache-2.0
"""``everyhop canary``: API keys, secrets and services that must never be used."""

from __future__ import annotations

import argparse
import sys
from typing import Any
from urllib.parse import quote

from everyhop.cli.arguments import add_verb, admin
from everyhop.cli.exit_codes import OK
from everyhop.cli.output import print_json, say, table, wants_json

KINDS = ("api-key", "secret", "service")
RESPONSES = ("alert", "block", "quarantine")
_CREATE = """\
Put it where only somebody who looks around would find it: a file of old credentials, an environment variable, a wiki
page.  An API key or a secret is printed once, on standard output; only a keyed mark of it is stored.  It opens nothing,
and whoever shows it at any door is answered like with any other wrong credential.  The use is a critical finding within
a second; --response says what else happens: block refuses the caller for a day, quarantine ends the identity of a
workload (an address is blocked instead).

A service is declared in the policy, `services: {NAME: {canary: true}}`: then no rule can open it, and every call of a
workload to it is a finding.

examples:
  everyhop canary create api-key --name 'old deploy notes' --response block > notes.txt
  everyhop canary create secret --name 'env of web-3' --prefix ghp_ --response quarantine
  everyhop canary create service --name vault-backup --response quarantine
"""
_LIST = """\
Only the owner of the state directory can ask: for everybody else a canary must look like the real thing.

examples:
  everyhop canary list
  everyhop canary list -o json
"""
_END = """\
Its use stays a finding, since nobody has a reason for it now either; but nobody is blocked for it any more.  An API key
is revoked.

examples:
  everyhop canary end 3f9ac01b77d2
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    noun = commands.add_parser(
        "canary", help="create, list or end credentials and services that nobody must use"
    )
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    create = add_verb(verbs, "create", _create, _CREATE, "make a canary; a credential is printed once")
    create.add_argument("kind", choices=KINDS, metavar="KIND", help="api-key, secret or service")
    create.add_argument("--name", required=True, help="for you: where it lies; of a service its name")
    create.add_argument(
        "--response", choices=RESPONSES, default="alert", help="alert (default), block or quarantine"
    )
    create.add_argument("--prefix", default="", help="how a secret begins, e.g. ghp_")
    create.add_argument("--owner", help="who seems to answer for an API key (default: integration)")
    create.add_argument(
        "--scope",
        action="append",
        default=[],
        metavar="SERVICE.OPERATION",
        help="what an API key seems to open (default: all that the policy opens to the outside); may be repeated",
    )
    create.add_argument("--env", default="live", help="part of an API key's text (default: live)")
    create.add_argument("--expires", metavar="DURATION", help="an API key's life (default: 90d)")
    add_verb(verbs, "list", _list, _LIST, "every canary, and what a use of it leads to")
    end = add_verb(verbs, "end", _end, _END, "end a canary")
    end.add_argument("id", metavar="ID", help="from `canary list`")


def _create(args: argparse.Namespace) -> int:
    from everyhop.core.durations import parse_duration

    message = {
        "kind": args.kind,
        "name": args.name,
        "response": args.response,
        "owner": args.owner,
        "scopes": args.scope,
        "environment": args.env,
        "life_seconds": None if args.expires is None else parse_duration(args.expires).total_seconds(),
        "prefix": args.prefix,
    }
    answer: dict[str, Any] = admin(args).post("/v1/canaries", message)
    if wants_json(args):
        print_json(answer)
        return OK
    made = answer["canary"]
    if answer["text"] is not None:
        print(answer["text"])
        sys.stdout.flush()
        say(f"canary {made['id']} ({made['name']}): a use leads to {made['response']}; not shown again")
        return OK
    say(f"canary {made['id']}: a call to {made['name']} leads to {made['response']}")
    if not answer["is_declared"]:
        say(f"it counts once the policy declares it:\n\nservices:\n  {made['name']}: {{canary: true}}")
    return OK


def _list(args: argparse.Namespace) -> int:
    answer = admin(args).get("/v1/canaries")
    if wants_json(args):
        print_json(answer)
        return OK
    rows = [
        [c["id"], c["kind"], c["state"], c["response"], c["name"], c["lookup"] or "", c["created_at"]]
        for c in answer["canaries"]
    ]
    print(table(["id", "kind", "state", "response", "name", "api key", "created"], rows))
    return OK


def _end(args: argparse.Namespace) -> int:
    answer = admin(args).post(f"/v1/canaries/{quote(args.id, safe='')}/end", {})
    if wants_json(args):
        print_json(answer)
    else:
        say(f"{answer['id']} ({answer['name']}) is ended; its use is still a finding")
    return OK
