# SPDX-License-Identifier: Apache-2.0
"""``everyhop policy compile`` and ``policy targets``: the policy as files of other systems, exact or refused."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everyhop.cli.arguments import add_output, add_policy_and_targets
from everyhop.cli.exit_codes import FAILED, NARROWER, OK
from everyhop.cli.output import paint, print_json, printable, say, table, wants_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.policy.model import Snapshot
    from everyhop.runtime.compiled_files import Difference
    from everyhop.targets.model import Compilation

_COMPILE: str = """\
examples:
  everyhop policy compile --target istio                          print what ./everyhop.yaml means to Istio
  everyhop policy compile --target istio,networkpolicy --out k8s  both on the same hops, into k8s/
  everyhop policy compile --target linkerd --with sdk --out k8s   what Linkerd cannot hold is held by the SDK
  everyhop policy compile --target istio --out k8s --check        for CI: do the files say what the policy says?

exit codes: 0 compiled · 1 a clause is held by nobody on the hop (nothing is written), or --check found a difference
            2 the policy is wrong · 10 written with --partial, and what nobody holds stays shut
"""

_TARGETS: str = """\
examples:
  everyhop policy targets              what can be compiled to, and what each can hold
  everyhop policy targets -o json
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verbs."""
    shape = argparse.RawDescriptionHelpFormatter
    verb = verbs.add_parser(
        "compile",
        help="compile to Istio, Linkerd, Cilium, Envoy and others",
        epilog=_COMPILE,
        formatter_class=shape,
    )
    add_policy_and_targets(verb)
    verb.add_argument("--out", metavar="DIR", type=Path, help="write the files there (default: print them)")
    way = verb.add_mutually_exclusive_group()
    way.add_argument("--check", action="store_true", help="write nothing; compare with the files in --out")
    way.add_argument(
        "--partial", action="store_true", help="write also when a clause is held by nobody: it stays shut"
    )
    add_output(verb)
    verb.set_defaults(run=_compile)
    listing = verbs.add_parser(
        "targets", help="what can be compiled to, and what each holds", epilog=_TARGETS, formatter_class=shape
    )
    listing.add_argument("--markdown", action="store_true", help="the matrix as the documentation has it")
    add_output(listing)
    listing.set_defaults(run=_list)


def compiled(args: argparse.Namespace) -> tuple[Snapshot, tuple[Compilation, ...]]:
    """Return the policy that the arguments name and its compilations; raises PolicyError, InputError."""
    from everyhop.cli.policy_at_hand import DEFAULT, read_policy
    from everyhop.targets.compiling import check_beside, compile_policy

    check_beside(args.beside)
    snapshot = read_policy(args.policy or DEFAULT).snapshot
    return snapshot, compile_policy(snapshot, args.target, beside=args.beside)


def report(compilations: Sequence[Compilation]) -> None:
    """Print what the targets do not hold as written, on standard error."""
    for diagnostic in (one for compilation in compilations for one in compilation.diagnostics):
        text = printable(diagnostic.render())
        print(paint(text, "red" if diagnostic.is_error else "yellow"), file=sys.stderr)


def _compile(args: argparse.Namespace) -> int:
    from everyhop.core.errors import InputError
    from everyhop.runtime import compiled_files

    if args.check and args.out is None:
        raise InputError("--check compares with files: name their directory with --out")
    snapshot, compilations = compiled(args)
    has_failed = any(one.failed for one in compilations)
    if not wants_json(args):
        report(compilations)
    found = None
    if args.check and not has_failed:
        found = compiled_files.difference(args.out, compilations)
    elif args.out is not None and (args.partial or not has_failed):
        found = compiled_files.write(args.out, compilations)
    if wants_json(args):
        print_json(_described(snapshot, compilations, found, with_content=args.out is None))
    elif args.out is None:
        _print_files(compilations)
    elif has_failed and not args.partial:
        say(
            "nothing was written: put what holds these clauses on the hop (--with), or write the rest with --partial"
        )
    elif found is not None:
        _print_difference(args, compilations, found)
    if has_failed:
        return NARROWER if args.partial and args.out is not None else FAILED
    return FAILED if args.check and found is not None and not found.is_none else OK


def _print_files(compilations: Sequence[Compilation]) -> None:
    for file in (file for one in compilations for file in one.files):
        print(paint(f"### {file.path}", "bold"))
        print(file.content.decode())


def _print_difference(
    args: argparse.Namespace, compilations: Sequence[Compilation], found: Difference
) -> None:
    words = (
        ("missing", "changed", "no longer compiled") if args.check else ("written", "rewritten", "removed")
    )
    for word, paths in zip(words, (found.missing, found.changed, found.stale), strict=True):
        for path in paths:
            print(f"{word:9} {printable(args.out / path)}")
    count = sum(len(one.files) for one in compilations)
    names = ", ".join(one.target for one in compilations)
    if found.is_none:
        print(f"ok: {count} files of {names} are as compiled")
    elif args.check:
        say(
            f"the files do not say what the policy says: everyhop policy compile --target {names} --out {args.out}"
        )


def _described(
    snapshot: Snapshot, compilations: Sequence[Compilation], found: Difference | None, *, with_content: bool
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "snapshot": snapshot.hash,
        "ok": not any(one.failed for one in compilations),
        "targets": {
            one.target: {
                "files": [
                    {"path": file.path, "superset": file.is_superset}
                    | ({"content": file.content.decode()} if with_content else {})
                    for file in one.files
                ],
                "diagnostics": [diagnostic.to_dict() for diagnostic in one.diagnostics],
            }
            for one in compilations
        },
    }
    if found is not None:
        described["difference"] = {
            "missing": list(found.missing),
            "changed": list(found.changed),
            "stale": list(found.stale),
        }
    return described


def _list(args: argparse.Namespace) -> int:
    from everyhop.targets.compiling import NAMES, target_of
    from everyhop.targets.matrix import MATRIX, cell
    from everyhop.targets.matrix_page import matrix_page
    from everyhop.targets.model import Feature

    if args.markdown:
        print(matrix_page(), end="")
        return OK
    summaries = {name: target_of(name).summary for name in NAMES}
    if wants_json(args):
        matrix = {
            target: {
                feature.value: {"fidelity": found.fidelity.value, "note": found.note}
                for feature in Feature
                for found in (cell(target, feature),)
            }
            for target in MATRIX
        }
        print_json({"targets": summaries, "matrix": matrix})
        return OK
    print(table(("target", "what it is"), list(summaries.items())))
    print()
    enforcing = list(MATRIX)
    rows = [
        [feature.value, *(cell(target, feature).fidelity.value for target in enforcing)]
        for feature in Feature
    ]
    print(table(("feature", *enforcing), rows))
    print("\nE exact · N narrower, said as a warning · X refused · A exact with an authorizer, else refused")
    return OK
