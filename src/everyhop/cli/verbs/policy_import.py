# SPDX-License-Identifier: Apache-2.0
"""``everyhop policy import``: what another system enforces today, as a policy that opens nothing more."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from everyhop.cli.arguments import add_output
from everyhop.cli.exit_codes import NARROWER, OK
from everyhop.cli.output import print_json, printable, say, wants_json

if TYPE_CHECKING:
    from everyhop.importing import Imported

_ORIGINS = ("istio", "networkpolicy", "otterize", "spire")

_EPILOG = """\
examples:
  kubectl get authorizationpolicies,requestauthentications,peerauthentications,deployments,services -A -o yaml |
    everyhop policy import --from istio - --out everyhop.yaml
  everyhop policy import --from networkpolicy manifests/
  everyhop policy import --from otterize intents.yaml deployments.yaml
  spire-server entry show -output json | everyhop policy import --from spire -

Manifests of the workloads (Deployments and the like) tell accounts, labels and ports; without them some are assumed.

exit codes: 0 everything is carried over · 10 parts are listed that are not, or not wholly · 2 the input is wrong
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    verb = verbs.add_parser(
        "import",
        help="make a policy from Istio, NetworkPolicies, Otterize or SPIRE",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("files", metavar="FILE|DIR|-", nargs="+", help="manifests; - is standard input")
    verb.add_argument("--from", dest="origin", choices=_ORIGINS, required=True, help="whose they are")
    verb.add_argument(
        "--out", metavar="FILE", type=Path, help="write the policy there (default: standard output)"
    )
    verb.add_argument("--force", action="store_true", help="overwrite FILE")
    verb.add_argument(
        "--trust-domain", metavar="NAME", help="of the identities (default: the one named most)"
    )
    verb.add_argument(
        "--methods",
        metavar="LIST",
        type=_methods,
        help="what any method stands for (default: GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS)",
    )
    verb.add_argument(
        "--gateway",
        metavar="NAMESPACE/ACCOUNT",
        type=_account,
        help="the ingress gateway: its calls are those of outside",
    )
    verb.add_argument(
        "--root-namespace",
        metavar="NAME",
        default="istio-system",
        help="the mesh's, whose policies hold in every namespace (default: istio-system)",
    )
    add_output(verb)
    verb.set_defaults(run=_run)


def _methods(text: str) -> tuple[str, ...]:
    from everyhop.policy._grammar import METHODS

    found = tuple(text.split(","))
    if not set(found) <= set(METHODS):
        raise argparse.ArgumentTypeError("methods with commas between, of " + ", ".join(METHODS))
    return found


def _account(text: str) -> tuple[str, str]:
    namespace, slash, account = text.partition("/")
    if not slash or not namespace or not account or "/" in account:
        raise argparse.ArgumentTypeError("NAMESPACE/ACCOUNT")
    return namespace, account


def _run(args: argparse.Namespace) -> int:
    from everyhop.cli.manifest_files import read_files
    from everyhop.core.errors import Conflict
    from everyhop.importing import DEFAULT_METHODS, Wishes, import_policy

    if args.out is not None and args.out.exists() and not args.force:
        raise Conflict(f"{args.out} exists", hint="overwrite it with --force, or choose another name")
    wishes = Wishes(
        trust_domain=args.trust_domain,
        methods=args.methods or DEFAULT_METHODS,
        gateway=args.gateway,
        root_namespace=args.root_namespace,
    )
    imported = import_policy(args.origin, read_files(args.files), wishes)
    if args.out is not None:
        _write(args.out, imported.text, force=args.force)
    if wants_json(args):
        print_json(imported.to_dict())
    else:
        _print(args, imported)
    return OK if imported.is_whole else NARROWER


def _write(path: Path, text: bytes, *, force: bool) -> None:
    """Write in one step; without ``force`` a file that came to be meanwhile is not overwritten either."""
    from everyhop.core.errors import Conflict, InputError

    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(path, flags, 0o644), "wb") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise Conflict(f"{path} exists", hint="overwrite it with --force, or choose another name") from error
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _print(args: argparse.Namespace, imported: Imported) -> None:
    """Print the policy, or where it was put; the parts beside it."""
    if args.out is None:
        sys.stdout.write(imported.text.decode())
        sys.stdout.flush()
    stream = sys.stderr if args.out is None else sys.stdout
    for part in imported.parts:
        print(printable(part.render()), file=stream)
    lost = sum(part.is_lost for part in imported.parts)
    place = "" if args.out is None else f"{args.out}: "
    say(
        f"{place}everything is carried over"
        if not lost
        else f"{place}{lost} of {len(imported.parts)} parts are not carried over as they were"
    )
