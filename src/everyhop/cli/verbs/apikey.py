# SPDX-License-Identifier: Apache-2.0
"""``everyhop apikey``: keys for clients outside of the trust domain."""

from __future__ import annotations

import argparse
import sys
from typing import Any
from urllib.parse import quote

from everyhop.cli.arguments import add_verb, admin
from everyhop.cli.exit_codes import OK
from everyhop.cli.output import print_json, say, table, wants_json

_CREATE = """\
The key is printed once, on standard output, and kept nowhere: only a digest of it is stored.  It opens nothing
that the policy does not open to `from: outside`, and only at an edge (`everyhop run SERVICE --edge PORT`).

examples:
  everyhop apikey create --owner 'ACME billing' --scope storefront.order > acme.key
  everyhop apikey create --owner ci --scope storefront.list --source 203.0.113.0/24 --expires 30d -o json
  curl --cacert bundle.pem -H "Authorization: Bearer $(cat acme.key)" https://shop.example:8443/orders
"""
_ROTATE = """\
Old and new key work side by side until the overlap is over, so that nobody has to be quick.

examples:
  everyhop apikey rotate k7Qm2xPa > acme.key              the old one ends in 24 hours
  everyhop apikey rotate k7Qm2xPa --overlap 1h
"""
_REVOKE = """\
The key ends now, and with it every token that was made for it.

examples:
  everyhop apikey revoke k7Qm2xPa
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    noun = commands.add_parser("apikey", help="create, list, rotate or revoke keys of outside clients")
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    create = add_verb(verbs, "create", _create, _CREATE, "make a key; it is printed once")
    create.add_argument("--owner", required=True, help="who answers for it")
    create.add_argument(
        "--scope",
        action="append",
        required=True,
        metavar="SERVICE.OPERATION",
        help="what it opens; may be repeated",
    )
    create.add_argument("--env", default="live", help="part of the key's text (default: live)")
    create.add_argument(
        "--source", action="append", default=[], metavar="NETWORK", help="only from there; may be repeated"
    )
    create.add_argument("--expires", metavar="DURATION", help="its life (default: 90d)")
    listing = add_verb(verbs, "list", _list, None, "every key with its state; none can be told from it")
    listing.add_argument("--owner", help="only those of one owner")
    rotate = add_verb(verbs, "rotate", _rotate, _ROTATE, "make a successor with the same rights")
    rotate.add_argument("lookup", metavar="LOOKUP", help="the key's name, from `apikey list`")
    rotate.add_argument("--overlap", metavar="DURATION", help="how long the old one goes on (default: 24h)")
    revoke = add_verb(verbs, "revoke", _revoke, _REVOKE, "end a key at once")
    revoke.add_argument("lookup", metavar="LOOKUP", help="the key's name, from `apikey list`")


def _seconds(text: str | None) -> float | None:
    from everyhop.core.durations import parse_duration

    return None if text is None else parse_duration(text).total_seconds()


def _show_new(args: argparse.Namespace, answer: dict[str, Any]) -> int:
    """Print a new key on standard output and what goes with it beside it, so that the output can be kept."""
    entry = answer["entry"]
    if wants_json(args):
        print_json(answer)
    else:
        print(answer["key"])
        sys.stdout.flush()
        say(f"{entry['lookup']}: {' '.join(entry['scopes'])}, until {entry['expires_at']}; not shown again")
    return OK


def _create(args: argparse.Namespace) -> int:
    message = {
        "owner": args.owner,
        "scopes": args.scope,
        "environment": args.env,
        "sources": args.source,
        "life_seconds": _seconds(args.expires),
    }
    return _show_new(args, admin(args).post("/v1/api-keys", message))


def _list(args: argparse.Namespace) -> int:
    answer = admin(args).get("/v1/api-keys", owner=args.owner)
    if wants_json(args):
        print_json(answer)
        return OK
    rows = [
        [
            k["lookup"],
            k["state"],
            k["owner"],
            " ".join(k["scopes"]),
            " ".join(k["sources"]) or "anywhere",
            k["expires_at"],
            k["last_used_at"],
            k["replaced_by"],
        ]
        for k in answer["api_keys"]
    ]
    header = ["lookup", "state", "owner", "scopes", "from", "expires", "last used", "replaced by"]
    print(table(header, rows))
    return OK


def _rotate(args: argparse.Namespace) -> int:
    path = f"/v1/api-keys/{quote(args.lookup, safe='')}/rotate"
    return _show_new(args, admin(args).post(path, {"overlap_seconds": _seconds(args.overlap)}))


def _revoke(args: argparse.Namespace) -> int:
    answer = admin(args).delete(f"/v1/api-keys/{quote(args.lookup, safe='')}")
    if wants_json(args):
        print_json(answer)
    else:
        say(f"{answer['lookup']} of {answer['owner']} is {answer['state']}")
    return OK
