# SPDX-License-Identifier: Apache-2.0
"""``everyhop keys``: the keys of the trust domain: authorities that sign identities, keys that sign tokens."""

from __future__ import annotations

import argparse
from typing import Any
from urllib.parse import quote

from everyhop.cli.arguments import add_output, add_state, admin
from everyhop.cli.output import print_json, say, table, wants_json

_ROTATE = """\
No request fails: a new authority signs only after every agent has acknowledged the bundle.  A new signing key of
tokens (--signing) is published at once and signs when everybody who reads the JWKS has had the time to fetch it,
twice `jwks_max_age`, and every agent has acknowledged it; --now waits for the agents only.

examples:
  everyhop keys rotate
  everyhop keys rotate --kind jwt
  everyhop keys rotate --signing
  everyhop keys rotate --signing --now
"""
_REVOKE = """\
For a key that somebody else may have.  Every token that it signed is refused from now on, everywhere, and the next
key signs at once; calls that carry an old token are refused until agents have new ones, less than a second.

examples:
  everyhop keys list
  everyhop keys revoke 1wH1FFvUwrrguTqQJowbPkLATi2LSeJsdhgKf9rs3jI --yes
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    noun = commands.add_parser("keys", help="list, rotate or revoke the keys that sign identities and tokens")
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="every authority and every signing key with its state")
    add_state(listing)
    add_output(listing)
    listing.set_defaults(run=_list)
    rotate = verbs.add_parser(
        "rotate",
        help="prepare, publish, wait until everybody holds it, then sign with a new key",
        epilog=_ROTATE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_state(rotate)
    add_output(rotate)
    which = rotate.add_mutually_exclusive_group()
    which.add_argument(
        "--kind", choices=["x509", "jwt"], default="x509", help="which authority (default: x509)"
    )
    which.add_argument("--signing", action="store_true", help="the key that signs tokens instead")
    rotate.add_argument("--now", action="store_true", help="with --signing: wait for agents only")
    rotate.add_argument(
        "--timeout", type=float, default=20.0, help="seconds to wait for agents (default: 20)"
    )
    rotate.set_defaults(run=_rotate)
    revoke = verbs.add_parser(
        "revoke",
        help="end a signing key, and every token that it signed, at once",
        epilog=_REVOKE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    revoke.add_argument("kid", metavar="KID", help="its name, from `keys list`")
    revoke.add_argument("--yes", action="store_true", help="confirm that its tokens are to end")
    add_state(revoke)
    add_output(revoke)
    revoke.set_defaults(run=_revoke)


def _show(args: argparse.Namespace, answer: dict[str, Any]) -> int:
    if wants_json(args):
        print_json(answer)
        return 0
    rows = [
        [a["kind"], a["state"], a["id"], a["not_before"], a["not_after"]]
        for a in answer.get("authorities", [])
    ]
    rows += [["token", k["state"], k["kid"], k["created_at"], None] for k in answer.get("signing_keys", [])]
    print(table(["kind", "state", "id", "not before", "not after"], rows))
    return 0


def _list(args: argparse.Namespace) -> int:
    link = admin(args)
    return _show(args, {**link.get("/v1/authorities"), **link.get("/v1/signing-keys")})


def _rotate(args: argparse.Namespace) -> int:
    from everyhop.core.errors import InputError

    link = admin(args, timeout=args.timeout + 10)
    if not args.signing:
        if args.now:
            raise InputError("--now belongs to --signing", hint="an authority always waits for agents only")
        return _show(args, link.post("/v1/rotate", {"kind": args.kind, "timeout": args.timeout}))
    answer = link.post("/v1/signing-keys/rotate", {"now": args.now, "timeout": args.timeout})
    if not args.now:
        say("published; it signs when every reader of the JWKS has had the time to fetch it")
    return _show(args, answer)


def _revoke(args: argparse.Namespace) -> int:
    from everyhop.core.errors import InputError

    if not args.yes:
        raise InputError(
            f"every token that {args.kid} signed would end", hint="say so with --yes if that is meant"
        )
    return _show(args, admin(args).delete(f"/v1/signing-keys/{quote(args.kid, safe='')}"))
