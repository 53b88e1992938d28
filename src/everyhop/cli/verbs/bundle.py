# SPDX-License-Identifier: Apache-2.0
"""``everyhop bundle show``: the trust bundle as the standard's document."""

from __future__ import annotations

import argparse

from everyhop.cli.arguments import add_state, admin
from everyhop.cli.output import print_json


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    noun = commands.add_parser("bundle", help="the trust bundle (SPIFFE bundle document)")
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    show = verbs.add_parser("show", help="print the bundle document (JSON), or its authorities (PEM)")
    show.add_argument(
        "--format", choices=["spiffe", "pem"], default="spiffe", help="the document, or its X.509 authorities"
    )
    add_state(show)
    show.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    document = admin(args).get("/v1/bundle")
    if args.format == "pem":
        import base64
        import ssl  # every command would wait for it

        for key in document["keys"]:
            if key.get("use") == "x509-svid":
                print(ssl.DER_cert_to_PEM_cert(base64.b64decode(key["x5c"][0])), end="")
    else:
        print_json(document)
    return 0
