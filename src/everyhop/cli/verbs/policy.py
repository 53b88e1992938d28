# SPDX-License-Identifier: Apache-2.0
"""``everyhop policy``: check, show, test, schema; the other verbs are in modules of their own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from everyhop.cli import policy_suggest, policy_tests
from everyhop.cli.arguments import add_output, add_state, admin
from everyhop.cli.exit_codes import FAILED, INVALID, OK
from everyhop.cli.output import print_json, wants_json
from everyhop.cli.verbs import (
    policy_admission,
    policy_apply,
    policy_compile,
    policy_drift,
    policy_import,
    policy_plan,
    policy_prove,
)

if TYPE_CHECKING:
    from everyhop.policy.model import Snapshot


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    noun = commands.add_parser("policy", help="check, show, test or apply the policy")
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    for name, help_text, run in (
        ("check", "find every mistake, with file, line, column and a suggestion", _check),
        ("show", "what exists, which doors it has, who may use them", _show),
        ("test", "run the policy's own tests; what they cover; new ones", policy_tests.run),
    ):
        verb = verbs.add_parser(name, help=help_text)
        verb.add_argument("policy", metavar="FILE|DIR", type=Path, nargs="?", help="default: ./everyhop.yaml")
        add_output(verb)
        add_state(verb)
        verb.set_defaults(run=run)
        if run is _show:
            verb.add_argument(
                "--placement", action="store_true", help="where each clause is decided, and why not in Envoy"
            )
        if name == "test":
            policy_tests.add_options(verb)
    policy_suggest.add(verbs)
    policy_plan.add(verbs)
    policy_prove.add(verbs)
    policy_apply.add(verbs)
    policy_compile.add(verbs)
    policy_admission.add(verbs)
    policy_drift.add(verbs)
    policy_import.add(verbs)
    schema = verbs.add_parser("schema", help="print the JSON Schema, for editors")
    schema.set_defaults(run=_schema)


def _path(args: argparse.Namespace) -> Path:
    return args.policy or Path("everyhop.yaml")


def _parse(args: argparse.Namespace) -> Snapshot:
    from everyhop.runtime.policy_files import PolicyFiles, PureRules

    return PureRules().parse(PolicyFiles(_path(args)).read())


def _check(args: argparse.Namespace) -> int:
    from everyhop.core.errors import PolicyError
    from everyhop.policy.lint import lint
    from everyhop.runtime.policy_files import PureRules

    try:
        snapshot = _parse(args)
    except PolicyError as error:
        if not wants_json(args):
            raise
        print_json({"ok": False, "problems": [p.to_dict() for p in error.problems], "warnings": []})
        return INVALID
    failed = PureRules().failed_tests(snapshot)
    warnings = lint(snapshot)
    if wants_json(args):
        print_json(
            {
                "ok": not failed,
                "snapshot": snapshot.hash,
                "problems": [p.to_dict() for p in failed],
                "warnings": [p.to_dict() for p in warnings],
            }
        )
    else:
        for warning in warnings:
            print(warning.render().replace(": error: ", ": warning: ", 1))
        for problem in failed:
            print(problem.render())
        if not failed:
            print(
                f"ok: {len(snapshot.services)} services, {len(snapshot.rules)} rules, snapshot {snapshot.hash[:16]}"
            )
    return FAILED if failed else OK


def _show(args: argparse.Namespace) -> int:
    from everyhop.core.errors import Unavailable
    from everyhop.policy import decode_snapshot
    from everyhop.policy.show import describe, render

    if args.policy is None:
        try:
            snapshot = decode_snapshot(admin(args).get_bytes("/v1/snapshot"))
        except Unavailable:
            snapshot = _parse(args)
    else:
        snapshot = _parse(args)
    if args.placement:
        from everyhop.dataplane import placement

        placed = placement.describe(snapshot)
        if wants_json(args):
            print_json(placed)
        else:
            print(placement.render(placed))
        return OK
    if wants_json(args):
        print_json(describe(snapshot))
    else:
        print(render(snapshot))
    return OK


def _schema(args: argparse.Namespace) -> int:
    from everyhop.policy.schema import json_schema

    del args
    print_json(json_schema())
    return OK
