# SPDX-License-Identifier: Apache-2.0
"""``everyhop svid``: look at the identity of a service, as the owner of the state directory."""

from __future__ import annotations

import argparse
import base64
import os
from pathlib import Path
from typing import Any

from everyhop.cli.arguments import add_output, add_state, agent
from everyhop.cli.exit_codes import OK
from everyhop.cli.output import print_json, wants_json


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    noun = commands.add_parser(
        "svid", help="show or fetch the SVID of a service (owner of the state directory only)"
    )
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    show = verbs.add_parser("show", help="print what the SVID says")
    fetch = verbs.add_parser(
        "fetch", help="write svid.pem, key.pem (0600) and bundle.pem, or print a JWT-SVID"
    )
    for verb, run in ((show, _show), (fetch, _fetch)):
        verb.add_argument("service", metavar="SERVICE")
        add_state(verb)
        add_output(verb)
        verb.set_defaults(run=run)
    fetch.add_argument("--write", metavar="DIR", type=Path, help="directory for the three files")
    fetch.add_argument("--audience", action="append", help="fetch a JWT-SVID for this audience instead")


def fetch_svid(args: argparse.Namespace, service: str) -> dict[str, Any]:
    """Ask the agent for an X509-SVID of a service; binary members are decoded."""
    answer: dict[str, Any] = agent(args).post("/v1/svid", {"service": service})
    answer["chain"] = [base64.b64decode(der) for der in answer["chain"]]
    answer["bundle"] = [base64.b64decode(der) for der in answer["bundle"]]
    answer["key"] = base64.b64decode(answer["key"])
    return answer


def _show(args: argparse.Namespace) -> int:
    from cryptography import x509

    answer = fetch_svid(args, args.service)
    leaf = x509.load_der_x509_certificate(answer["chain"][0])
    facts = {
        "spiffe_id": answer["spiffe_id"],
        "serial": f"{leaf.serial_number:x}",
        "not_before": leaf.not_valid_before_utc.isoformat(),
        "not_after": leaf.not_valid_after_utc.isoformat(),
        "issuer": leaf.issuer.rfc4514_string(),
        "authorities_in_bundle": len(answer["bundle"]),
    }
    if wants_json(args):
        print_json(facts)
    else:
        print("\n".join(f"{name:<22} {value}" for name, value in facts.items()))
    return OK


def _fetch(args: argparse.Namespace) -> int:
    from everyhop.core.errors import InputError

    if args.audience:
        answer = agent(args).post("/v1/svid", {"service": args.service, "audience": args.audience})
        print_json({k: answer[k] for k in ("spiffe_id", "token", "expires_at")}) if wants_json(
            args
        ) else print(answer["token"])
        return OK
    if args.write is None:
        raise InputError("name a directory with --write, or an audience with --audience")
    answer = fetch_svid(args, args.service)
    write_svid(answer, args.write)
    if wants_json(args):
        print_json(
            {
                "spiffe_id": answer["spiffe_id"],
                "expires_at": answer["expires_at"],
                "directory": str(args.write),
            }
        )
    else:
        print(f"{answer['spiffe_id']} until {answer['expires_at']} in {args.write}")
    return OK


def write_svid(svid: dict[str, Any], directory: Path) -> None:
    """Write what :func:`fetch_svid` gave as ``svid.pem``, ``key.pem`` (0600) and ``bundle.pem``."""
    from everyhop.core.secret import Secret
    from everyhop.x509.certificates import certificates_to_pem
    from everyhop.x509.keys import private_key_to_pem

    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(directory / "svid.pem", certificates_to_pem(svid["chain"]), 0o644)
    _write(directory / "key.pem", private_key_to_pem(Secret(svid["key"])).reveal(), 0o600)
    _write(directory / "bundle.pem", certificates_to_pem(svid["bundle"]), 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write through a new file of the right mode, so that a key is never readable, not even for a moment."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    partial.replace(path)
