# SPDX-License-Identifier: Apache-2.0
"""``everyhop policy admission``: manifests judged as the webhook would judge them, before anybody applies them."""

from __future__ import annotations

import argparse

from everyhop.cli.arguments import add_output
from everyhop.cli.exit_codes import FAILED, OK
from everyhop.cli.output import print_json, printable, wants_json

_EPILOG = """\
examples:
  everyhop policy admission k8s/                        every manifest of a directory
  kustomize build overlays/prod | everyhop policy admission -

exit codes: 0 nothing found · 1 something should not be admitted · 2 a manifest cannot be read
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    verb = verbs.add_parser(
        "admission",
        help="judge manifests by the rules of the webhook and the guard rails",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("manifests", metavar="FILE|DIR|-", nargs="+")
    add_output(verb)
    verb.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from everyhop.admission.judging import judge_all
    from everyhop.cli.manifest_files import read_files
    from everyhop.manifests import read_manifests

    manifests = read_manifests(read_files(args.manifests))
    found = list(judge_all(manifests.objects))
    if wants_json(args):
        findings = [
            {
                "code": finding.code.value,
                "object": str(one),
                "file": one.span.file,
                "line": one.span.line,
                "path": finding.path,
                "message": finding.message,
            }
            for one, finding in found
        ]
        print_json({"objects": len(manifests), "findings": findings})
    else:
        for one, finding in found:
            print(printable(f"{one.span}: {one}: {finding}"))
        if not found:
            print(f"ok: {len(manifests)} objects, nothing that should not be admitted")
    return FAILED if found else OK
