# SPDX-License-Identifier: Apache-2.0
"""``everyhop policy drift``: the objects in force against the policy, from files or from a cluster."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from everyhop.cli.arguments import add_output, add_policy_and_targets
from everyhop.cli.exit_codes import FAILED, NARROWER, OK
from everyhop.cli.output import paint, print_json, printable, wants_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from everyhop.policy.model import Snapshot
    from everyhop.proving import DriftReport, Finding

_EPILOG = """\
examples:
  everyhop policy drift --target istio --manifests k8s/          what is in the repository
  kubectl get authorizationpolicies,peerauthentications -A -o yaml |
    everyhop policy drift --target istio --manifests -           what a cluster has, as far as it was listed
  everyhop policy drift --target istio,networkpolicy --kubeconfig ~/.kube/config --context prod

A cluster is only read (GET); of a kubeconfig, certificates and tokens are used, and programs (exec) are not run.

exit codes: 0 in sync · 1 something may get through that the policy refuses · 10 other drift · 2 the input is wrong
            (4 the cluster does not answer)
"""
_COLOURS: Final = {"widens": "red", "drifts": "yellow", "note": "dim"}
_WORDS: Final = {"widens": "WIDENS", "drifts": "drift", "note": "note"}
_MAX_CHANGES: Final = 12


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    verb = verbs.add_parser(
        "drift",
        help="compare objects in force with the policy: missing, changed, foreign; what gets through",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_policy_and_targets(verb)
    where = verb.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--manifests",
        metavar="FILE|DIR|-",
        action="append",
        help="objects in force; may be given more than once",
    )
    where.add_argument("--kubeconfig", metavar="FILE", type=Path, help="read them from a cluster")
    verb.add_argument("--context", metavar="NAME", help="of the kubeconfig (default: its current one)")
    add_output(verb)
    verb.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from everyhop.cli.policy_at_hand import DEFAULT, read_policy
    from everyhop.core.errors import InputError
    from everyhop.proving import find_drift

    if args.context is not None and args.kubeconfig is None:
        raise InputError("--context is of a kubeconfig, and none is named")
    snapshot = read_policy(args.policy or DEFAULT).snapshot
    reports = find_drift(snapshot, args.target, _in_force(args, snapshot), beside=args.beside)
    if wants_json(args):
        print_json({"targets": [report.to_dict() for report in reports]})
    else:
        for report in reports:
            _print(report)
    return code_of(reports)


def _in_force(args: argparse.Namespace, snapshot: Snapshot) -> Mapping[str, bytes]:
    if args.manifests is not None:
        from everyhop.cli.manifest_files import read_files

        return read_files(args.manifests)
    from everyhop.providers.kubeconfig import read_kubeconfig
    from everyhop.providers.kubernetes_objects import ClusterReader
    from everyhop.proving import kinds_of

    with ClusterReader(read_kubeconfig(args.kubeconfig, args.context)) as cluster:
        return cluster.read(kinds_of(snapshot, args.target))


def code_of(reports: Sequence[DriftReport]) -> int:
    """Return the exit code that tells what was found."""
    from everyhop.proving import Severity

    worst = {report.worst for report in reports}
    return FAILED if Severity.WIDENS in worst else NARROWER if Severity.DRIFTS in worst else OK


def _print(report: DriftReport) -> None:
    asked = "no requests asked" if report.requests is None else f"{report.requests} requests asked"
    verdict = "in sync with the policy"
    if any(one.severity.value != "note" for one in report.findings):
        verdict = "NOT in sync with the policy"
    print(paint(f"{report.target}: {verdict}, {report.objects} objects, {asked}", "bold"))
    for one in report.findings:
        _print_finding(one)


def _print_finding(one: Finding) -> None:
    from everyhop.proving.rendering import words_of

    place = "" if one.span is None else f"{one.span.file}:{one.span.line}: "
    line = f"  {_WORDS[one.severity.value]}: {place}{one.subject}: {one.message} [{one.code}]"
    print(paint(printable(line), _COLOURS[one.severity.value]))
    for change in one.changes[:_MAX_CHANGES]:
        print(paint(printable(f"    {change.render()}"), "dim"))
    if len(one.changes) > _MAX_CHANGES:
        print(paint(f"    ... and {len(one.changes) - _MAX_CHANGES} more; -o json shows all", "dim"))
    if one.request is not None:
        print(paint(printable(f"    request: {words_of(one.request)}"), "dim"))
