# SPDX-License-Identifier: Apache-2.0
"""``everyhop run``: a workload behind its sidecar."""

from __future__ import annotations

import argparse
from pathlib import Path

from everyhop.cli.arguments import add_state, agent
from everyhop.cli.output import say

_EPILOG = """\
examples:
  everyhop run orders -- uvicorn orders:app          $UVICORN_UDS is set: nothing else to do
  everyhop run orders -- sh -c 'python -m http.server $PORT --bind 127.0.0.1'
  everyhop run storefront -- curl http://orders/orders
  everyhop run storefront --edge 8443 -- …           clients from outside call https://127.0.0.1:8443

The command gets: SPIFFE_ENDPOINT_SOCKET, EVERYHOP_SERVICE, EVERYHOP_SOCKET (bind here), UVICORN_UDS, PORT,
HTTP_PROXY and http_proxy (calls go through the sidecar), EVERYHOP_EGRESS (the same as a Unix socket).
Signals are passed through, and the exit code is the command's.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "run",
        help="run a command as a workload of a service",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("service", metavar="SERVICE")
    _add_options(parser)
    parser.add_argument("command", metavar="[--] CMD", nargs=argparse.REMAINDER)
    parser.set_defaults(run=_run)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_state(parser)
    parser.add_argument(
        "--port", type=int, help="the loopback port the application will bind (default: a free one)"
    )
    parser.add_argument(
        "--edge",
        metavar="[HOST:]PORT",
        help="also serve clients from outside here: HTTPS, with an API key or a user's token (`from: outside`)",
    )
    parser.add_argument(
        "--edge-certificate",
        type=Path,
        metavar="PEM",
        help="the chain that the edge shows (default: the SVID)",
    )
    parser.add_argument("--edge-key", type=Path, metavar="PEM", help="its key, readable by you alone")


def _split(args: argparse.Namespace) -> list[str]:
    """Return the command; options between SERVICE and ``--`` are ours and go into ``args``.

    argparse gives everything behind SERVICE to the command, because a command has options of its own.
    """
    rest: list[str] = args.command
    if rest[:1] != ["--"] and rest and rest[0].startswith("-") and "--" in rest:
        cut = rest.index("--")
        ours = argparse.ArgumentParser(prog="everyhop run SERVICE", add_help=False)
        _add_options(ours)
        for name, value in vars(ours.parse_args(rest[:cut])).items():
            if value is not None:
                setattr(args, name, value)
        rest = rest[cut:]
    return rest[1:] if rest[:1] == ["--"] else rest


def _run(args: argparse.Namespace) -> int:
    from everyhop.core.errors import InputError
    from everyhop.runtime.run import WorkloadRun

    command = _split(args)
    if not command:
        raise InputError("no command given", hint=f"everyhop run {args.service} -- CMD…")
    if args.port is not None and not 1 <= args.port <= 65535:  # noqa: PLR2004  # TCP ports
        raise InputError("--port is between 1 and 65535")
    return WorkloadRun(agent(args), say).run(args.service, command, port=args.port, edge=_edge(args))


def _edge(args: argparse.Namespace) -> dict[str, str]:
    """Return what the launch says of an edge; paths are made absolute here, where the user is."""
    said = {} if args.edge is None else {"edge": str(args.edge)}
    for name in ("edge_certificate", "edge_key"):
        if getattr(args, name) is not None:
            said[name] = str(getattr(args, name).absolute())
    return said
