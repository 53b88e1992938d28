# SPDX-License-Identifier: Apache-2.0
"""``everyhop token verify``: judge tokens as a service would, one a line, without a connection."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from everyhop.cli.arguments import add_state, admin
from everyhop.cli.exit_codes import DENIED, OK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from everyhop.tokens.keyset import KeySet
    from everyhop.tokens.revocations import Revocations

MAX_LINE: Final = 64 * 1024
_MAX_FILE: Final = 1024 * 1024

_EPILOG = """\
Reads one token a line and prints one JSON object a line: {"ok": true, "code": null, "claims": {…}} or
{"ok": false, "code": "TOKEN_EXPIRED"}.  Any line is answered, whatever it holds.  Keys, issuer and revocations are
those of the trust domain that is up, unless --jwks and --issuer name others; then nothing has to be up.

examples:
  everyhop token mint --from orders --for payments | everyhop token verify --service payments -
  everyhop token verify --service payments --operation charge --jwks jwks.json --issuer https://id.example - < tokens
  everyhop token verify --service payments --certificate svid.pem --now 2026-01-31T09:00:00Z - < tokens

exit codes: 0 every token is good · 3 at least one is refused
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = verbs.add_parser(
        "verify",
        help="verify tokens, one a line, as a service would",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", nargs="?", default="-", help="default: standard input")
    parser.add_argument("--service", required=True, help="the service that the token is shown to")
    parser.add_argument("--operation", help="one of its operations; the scope must hold it")
    parser.add_argument("--jwks", metavar="FILE", type=Path, help="the issuer's keys")
    parser.add_argument("--issuer", metavar="URL", help="the issuer (with --jwks)")
    parser.add_argument(
        "--now", metavar="TIME", help="judge as at this moment (RFC 3339, or seconds since 1970)"
    )
    parser.add_argument("--certificate", metavar="FILE", type=Path, help="PEM of the caller's certificate")
    parser.add_argument("--caller", metavar="SPIFFE_ID", help="the caller's SPIFFE ID")
    add_state(parser)
    parser.add_argument("-o", "--output", choices=["json"], default="json", help="json lines (the only form)")
    parser.set_defaults(run=_run)


def certificate_of(path: Path) -> bytes:
    """Return the first certificate of a PEM file in DER; raises InputError."""
    from everyhop.x509.certificates import certificates_from_pem

    return certificates_from_pem(_content(path))[0]


def _content(path: Path) -> bytes:
    from everyhop.core.errors import InputError

    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _MAX_FILE:
        raise InputError(f"{path} has more than {_MAX_FILE} bytes")
    return content


def _run(args: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from everyhop.tokens.offline import verify_line

    fixed = None if args.now is None else _moment(args.now)
    keys, issuer, revocations = _truth(args)
    certificate = None if args.certificate is None else certificate_of(args.certificate)
    is_good = True
    for line in _lines(args.file):
        verdict = verify_line(
            line,
            keys,
            issuer=issuer,
            service=args.service,
            operation=args.operation,
            now=fixed or datetime.now(UTC),
            certificate=certificate,
            peer=args.caller,
            revocations=revocations,
        )
        is_good = is_good and verdict["ok"]
        print(json.dumps(verdict), flush=True)
    return OK if is_good else DENIED


def _moment(text: str) -> datetime:
    """Return a moment of RFC 3339, or of seconds since 1970 as tokens have them; raises InputError."""
    from datetime import UTC, datetime

    from everyhop.core.clock import parse_rfc3339
    from everyhop.core.errors import InputError

    try:
        if text.isascii() and text.isdecimal():
            return datetime.fromtimestamp(int(text), UTC)
        return parse_rfc3339(text)
    except (ValueError, OverflowError, OSError) as error:
        hint = "e.g. 2026-01-31T09:00:00Z, or seconds since 1970"
        raise InputError(f"not a time: {text[:40]!r}", hint=hint) from error


def _truth(args: argparse.Namespace) -> tuple[KeySet, str, Revocations]:
    """Return keys, issuer and revocations: of the files named, or of the trust domain that is up."""
    from everyhop.core.errors import InputError
    from everyhop.tokens.keyset import parse_jwks
    from everyhop.tokens.revocations import NOTHING_REVOKED, Revocations

    if (args.jwks is None) != (args.issuer is None):
        raise InputError("--jwks and --issuer belong together")
    if args.jwks is not None:
        return parse_jwks(_content(args.jwks)), args.issuer, NOTHING_REVOKED
    truth: dict[str, Any] = admin(args).get("/v1/token-truth")
    keys = parse_jwks(json.dumps(truth["jwks"]).encode())
    return keys, truth["issuer"], Revocations.from_members(truth["revoked"])


def _lines(name: str) -> Iterator[str]:
    """Yield each line; of one that is longer than any token, the beginning."""
    from everyhop.core.errors import InputError

    if name == "-":
        yield from _lines_of(sys.stdin.buffer)
        return
    try:
        with Path(name).open("rb") as file:
            yield from _lines_of(file)
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from error


def _lines_of(stream: BinaryIO) -> Iterator[str]:
    while line := stream.readline(MAX_LINE):
        rest = line
        while rest and not rest.endswith(b"\n") and len(rest) == MAX_LINE:
            rest = stream.readline(MAX_LINE)
        yield line.decode("utf-8", "replace")
