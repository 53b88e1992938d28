# SPDX-License-Identifier: Apache-2.0
"""``everyhop log schema``: JSON Schema of what the log and its exports hold."""

from __future__ import annotations

import argparse

_EPILOG = """\
examples:
  everyhop log schema                      of OCSF events, as exports and --format ocsf write them
  everyhop log schema --format record      of records, as they are sealed
"""


def add_schema(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    verb = verbs.add_parser(
        "schema",
        help="JSON Schema of records, or of the OCSF events that they become",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("--format", choices=["ocsf", "record"], default="ocsf", help="default: ocsf")
    verb.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from everyhop.auditlog.ocsf import SchemaFormat, render_schema
    from everyhop.cli.exit_codes import OK

    print(render_schema(SchemaFormat(args.format)), end="")
    return OK
