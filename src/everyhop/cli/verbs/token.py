# SPDX-License-Identifier: Apache-2.0
"""``everyhop token``: access tokens from the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from everyhop.cli.arguments import add_verb, admin, agent
from everyhop.cli.exit_codes import FAILED, OK
from everyhop.cli.output import print_json, printable, say, wants_json
from everyhop.cli.verbs import token_verify
from everyhop.cli.verbs.svid import fetch_svid, write_svid

MAX_TOKEN_BYTES: Final = 64 * 1024

_MINT = """\
The token is bound to a certificate, and useless without its key (RFC 8705).  By default that is the SVID which the
agent holds for the caller now: `everyhop svid fetch CALLER --write DIR` writes the same one, `everyhop call --as
CALLER` uses it.  With --write the SVID is written beside it in one step; with --certificate the token is bound to
one that you have already.  It lives five minutes (setting `token_ttl`).

examples:
  everyhop token mint --from orders --for payments                        everything that the policy grants there
  everyhop token mint --from orders --for payments --scope payments.charge
  everyhop token mint --from orders --for payments#refund                 an operation with `token: operation`
  everyhop token mint --from orders --for payments --write id && \\
    curl --cert id/svid.pem --key id/key.pem --cacert id/bundle.pem …     the SVID that carries it

exit codes: 0 minted · 3 the policy does not grant it · 4 nothing is up · 6 no such service
"""
_INSPECT = """\
Nothing is verified: this shows what a token claims, not what is true.  The token is read from a file or from
standard input, never from an argument, which every process of the machine could read.

examples:
  everyhop token mint --from orders --for payments | everyhop token inspect
  everyhop token inspect token.txt -o json
"""
_INTROSPECT = """\
The server verifies it as every service would, revocations included.

examples:
  everyhop token introspect token.txt -o json

exit codes: 0 it is believed · 1 it is not
"""
_REVOKE = """\
Agents hold a revocation a moment later, and every sidecar with them.

examples:
  everyhop token revoke token.txt
  everyhop token revoke --txn 3Qm…            a user's transaction with everything that was made of it
  everyhop token revoke --subject alice       all that alice has now, wherever it was issued

exit codes: 0 revoked · 1 the token is not believed anyway
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    noun = commands.add_parser("token", help="mint, inspect, verify or revoke access tokens")
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    mint = add_verb(verbs, "mint", _mint, _MINT, "print an access token of a service (owner only)")
    mint.add_argument("--from", dest="caller", metavar="CALLER", required=True, help="the calling service")
    mint.add_argument("--for", dest="audience", metavar="SERVICE[#OPERATION]", required=True)
    mint.add_argument(
        "--scope", action="append", metavar="SCOPE", help="service.operation; may be repeated (default: all)"
    )
    bound = mint.add_mutually_exclusive_group()
    bound.add_argument(
        "--certificate", metavar="FILE", type=Path, help="PEM of the certificate to be bound to"
    )
    bound.add_argument("--write", metavar="DIR", type=Path, help="write the SVID that carries it there")
    inspect = add_verb(verbs, "inspect", _inspect, _INSPECT, "decode a token without believing it")
    inspect.add_argument("file", metavar="FILE", nargs="?", default="-", help="default: standard input")
    ask = add_verb(verbs, "introspect", _introspect, _INTROSPECT, "ask the server what it thinks of a token")
    ask.add_argument("file", metavar="FILE", nargs="?", default="-", help="default: standard input")
    revoke = add_verb(
        verbs, "revoke", _revoke, _REVOKE, "take a token, a transaction or a subject's tokens back"
    )
    what = revoke.add_mutually_exclusive_group()
    what.add_argument("file", metavar="FILE", nargs="?", default=None, help="default: standard input")
    what.add_argument("--txn", help="a transaction")
    what.add_argument("--subject", help="a user, an API key (apikey:LOOKUP) or a SPIFFE ID")
    token_verify.add(verbs)


def read_token(name: str) -> str:
    """Return the one token of a file, or of standard input for ``-``; raises InputError when there is no one."""
    from everyhop.core.errors import InputError

    try:
        if name == "-":
            content = sys.stdin.buffer.read(MAX_TOKEN_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from error
    text = content.decode("ascii", "replace").strip()
    if not text or len(content) > MAX_TOKEN_BYTES:
        raise InputError("no token, or more than one could be")
    return text


def mint_token(
    args: argparse.Namespace, caller: str, audience: str, *, scope: list[str] | None, x5t: str | None
) -> dict[str, Any]:
    """Ask the agent for a token; ``audience`` is ``SERVICE`` or ``SERVICE#OPERATION``."""
    target, _, operation = audience.partition("#")
    message = {
        "caller": caller,
        "target": target,
        "operation": operation or None,
        "scope": scope,
        "x5t": x5t,
    }
    answer: dict[str, Any] = agent(args).post("/v1/token", message)
    return answer


def _mint(args: argparse.Namespace) -> int:
    from everyhop.x509.thumbprint import x5t_s256

    x5t = None
    if args.certificate is not None:
        x5t = x5t_s256(token_verify.certificate_of(args.certificate))
    elif args.write is not None:
        svid = fetch_svid(args, args.caller)
        write_svid(svid, args.write)
        x5t = x5t_s256(svid["chain"][0])
    answer = mint_token(args, args.caller, args.audience, scope=args.scope, x5t=x5t)
    if wants_json(args):
        print_json(answer)
    else:
        print(answer["token"])
    return OK


def _inspect(args: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from everyhop.core.clock import rfc3339
    from everyhop.jose.jws import parse_compact
    from everyhop.jose.strict_json import parse_json_object

    parsed = parse_compact(read_token(args.file))
    claims = parse_json_object(parsed.payload)
    kinds = {"at+jwt": "access token", "txntoken+jwt": "transaction token"}
    kind = kinds.get(str(parsed.header.get("typ")), "unknown")
    now, end = datetime.now(UTC), claims.get("exp")
    is_time = isinstance(end, int) and not isinstance(end, bool) and 0 <= end < 2**33
    expires = datetime.fromtimestamp(end, UTC) if isinstance(end, int) and is_time else None
    shown: dict[str, Any] = {
        "verified": False,
        "kind": kind,
        "expired": None if expires is None else expires <= now,
        "header": dict(parsed.header),
        "claims": claims,
    }
    if wants_json(args):
        print_json(shown)
        return OK
    state = "has no end" if expires is None else "EXPIRED" if expires <= now else "not expired"
    print(f"{kind}, {state}{'' if expires is None else ', until ' + rfc3339(expires)}; NOT VERIFIED")
    for part in ("header", "claims"):
        print(f"{part}:")
        print("".join(f"  {printable(k):<10} {printable(v)}\n" for k, v in shown[part].items()), end="")
    return OK


def _introspect(args: argparse.Namespace) -> int:
    answer = admin(args).post("/v1/tokens/introspect", {"token": read_token(args.file)})
    if wants_json(args):
        print_json(answer)
    else:
        print("".join(f"{k:<12} {printable(v)}\n" for k, v in answer.items()), end="")
    return OK if answer["active"] else FAILED


def _revoke(args: argparse.Namespace) -> int:
    message: dict[str, str] = {}
    if args.txn is not None:
        message = {"txn": args.txn}
    elif args.subject is not None:
        message = {"subject": args.subject}
    else:
        message = {"token": read_token(args.file or "-")}
    answer = admin(args).post("/v1/tokens/revoke", message)
    if wants_json(args):
        print_json(answer)
    elif answer["revoked"]:
        say("revoked")
    else:
        say("the token is not believed anyway: expired, revoked before, or not ours")
    return OK if answer["revoked"] else FAILED
