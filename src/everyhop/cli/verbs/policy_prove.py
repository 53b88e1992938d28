# SPDX-License-Identifier: Apache-2.0
"""``everyhop policy prove``: whether what is enforced elsewhere is the policy, with the request that tells otherwise."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from everyhop.cli.arguments import add_output, add_policy_and_targets
from everyhop.cli.exit_codes import FAILED, OK
from everyhop.cli.output import paint, print_json, printable, wants_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from everyhop.proving import Proof

_EPILOG = """\
examples:
  everyhop policy prove --target istio                    the policy compiled, every kind of request asked of both
  everyhop policy prove --target istio,cilium             two that stand on the same hops
  everyhop policy prove --target istio --manifests k8s/   the manifests in force in place of the compiled ones
  everyhop policy prove --target envoy                    the real Envoy is started for each service, and asked
  everyhop policy prove --target linkerd --with sdk       what Linkerd cannot hold is held by the SDK

exit codes: 0 equal, or narrower · 1 WIDER: a request gets through that the policy refuses
            (with --exact also where it is narrower; 2 the policy or the manifests are wrong)
What is proven, relative to which model of each system: docs/explanation/proving.md
"""

_COLOURS = {"title": "bold", "wider": "red", "narrower": "yellow", "detail": "dim"}


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    verb = verbs.add_parser(
        "prove",
        help="ask policy and compiled targets every kind of request; show what differs",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_policy_and_targets(verb)
    verb.add_argument(
        "--manifests",
        metavar="FILE|DIR|-",
        help="objects in force (.yaml, .yml, .json) in place of what is compiled",
    )
    verb.add_argument("--exact", action="store_true", help="fail for what is narrower too")
    add_output(verb)
    verb.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from everyhop.cli.manifest_files import read_files
    from everyhop.cli.policy_at_hand import DEFAULT, read_policy
    from everyhop.proving import describe, prove_policy
    from everyhop.runtime.target_envoys import envoy_builder

    snapshot = read_policy(args.policy or DEFAULT).snapshot
    manifests = None if args.manifests is None else read_files([args.manifests])
    with envoy_builder() as envoy:
        proof = prove_policy(
            snapshot,
            args.target,
            manifests=manifests,
            beside=args.beside,
            builders={"envoy": envoy},
            progress=_progress(),
        )
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if wants_json(args):
        print_json(describe(proof))
    else:
        _print(proof)
    return code_of(proof, exact=args.exact)


def code_of(proof: Proof, *, exact: bool) -> int:
    """Return the exit code that tells what a proof means."""
    from everyhop.proving import Verdict

    refused = {Verdict.WIDER, Verdict.NARROWER} if exact else {Verdict.WIDER}
    return FAILED if proof.verdict in refused else OK


def _progress() -> Callable[[int], None] | None:
    if not sys.stderr.isatty():
        return None
    return lambda count: print(f"\r{count} requests asked", end="", file=sys.stderr, flush=True)


def _print(proof: Proof) -> None:
    from everyhop.proving import render

    for mark, line in render(proof):
        print(paint(printable(line), _COLOURS[mark.value]))
