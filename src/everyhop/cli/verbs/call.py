# SPDX-License-Identifier: Apache-2.0
"""``everyhop call``: an authenticated request from the command line."""

from __future__ import annotations

import argparse
import sys

from everyhop.cli.arguments import add_output, add_state, admin
from everyhop.cli.exit_codes import DENIED, FAILED, OK
from everyhop.cli.output import print_json, wants_json
from everyhop.cli.verbs.svid import fetch_svid
from everyhop.cli.verbs.token import mint_token

_EPILOG = """\
examples:
  everyhop call orders GET /orders --as storefront
  everyhop call payments POST /v1/charges --as orders --token
  everyhop call orders POST /orders --as storefront --data '{"item": 1}' -H 'content-type: application/json'

Only the owner of the state directory can do this: it takes an SVID of the caller and speaks mutual TLS to the
service's sidecar itself.  The path goes out exactly as written.

exit codes: 0 status below 400 · 3 status 401 or 403 · 1 any other
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "call",
        help="make one call as a service, from the command line",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("service", metavar="SERVICE")
    parser.add_argument("method", metavar="METHOD")
    parser.add_argument("path", metavar="/path")
    parser.add_argument("--as", dest="caller", metavar="CALLER", required=True, help="the calling service")
    parser.add_argument("-d", "--data", help="request body")
    parser.add_argument("-H", "--header", action="append", default=[], help="'name: value'; may be repeated")
    parser.add_argument(
        "--token",
        metavar="AUDIENCE",
        nargs="?",
        const="",
        help="carry an access token for the service, or for SERVICE#OPERATION",
    )
    parser.add_argument("-i", "--include", action="store_true", help="print status and headers as well")
    add_state(parser)
    add_output(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from everyhop.core.errors import InputError, NotFound, Unavailable
    from everyhop.runtime.mtls import call_once
    from everyhop.x509.thumbprint import x5t_s256

    status = admin(args).get("/v1/status")
    if args.service not in status["services"]:
        raise NotFound(f"no service {args.service!r} in the policy in force")
    target = status["services"][args.service]
    ingress = next(
        (i["ingress"] for i in target["instances"] if i["ingress"] and i["state"] == "ready"), None
    )
    if ingress is None:
        raise Unavailable(
            f"no instance of {args.service} is ready", hint=f"everyhop run {args.service} -- CMD…"
        )
    headers = []
    for line in args.header:
        name, colon, value = line.partition(":")
        if not colon:
            raise InputError(f"not a header: {line!r}", hint="write 'name: value'")
        headers.append((name.strip(), value.strip()))
    svid = fetch_svid(args, args.caller)
    if args.token is not None:
        x5t = x5t_s256(svid["chain"][0])
        minted = mint_token(args, args.caller, args.token or args.service, scope=None, x5t=x5t)
        headers.append(("authorization", f"Bearer {minted['token']}"))
    answer = call_once(
        svid,
        ingress=ingress,
        server_id=target["spiffe_id"],
        host=args.service,
        method=args.method,
        path=args.path,
        headers=headers,
        body=None if args.data is None else args.data.encode(),
    )
    if wants_json(args):
        body = answer.body.decode("utf-8", "replace")
        print_json({"status": answer.status, "headers": dict(answer.headers), "body": body})
    else:
        if args.include:
            print(f"HTTP {answer.status}")
            print("".join(f"{name}: {value}\n" for name, value in answer.headers))
        sys.stdout.flush()
        sys.stdout.buffer.write(answer.body)
        if answer.body and not answer.body.endswith(b"\n") and sys.stdout.isatty():
            print()
    if answer.status in {401, 403}:
        return DENIED
    return OK if answer.status < 400 else FAILED  # noqa: PLR2004  # HTTP's error statuses
