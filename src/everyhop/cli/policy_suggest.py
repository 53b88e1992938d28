# SPDX-License-Identifier: Apache-2.0
"""``everyhop policy suggest``: what recorded traffic says about the policy, as findings and as a patch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from everyhop.cli.arguments import add_state
from everyhop.cli.exit_codes import OK
from everyhop.cli.output import print_json, printable, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from everyhop.authz.narrowing import Narrowed
    from everyhop.authz.suggesting import Candidate
    from everyhop.cli.policy_at_hand import PolicyAtHand
    from everyhop.cli.traffic import Traffic

_EPILOG = """\
examples:
  everyhop policy suggest                      the last 30 days
  everyhop policy suggest --since 7d -o patch | patch -p1
  everyhop policy suggest --open -o json       with what would let refused calls in

The patch narrows only, unless --open is given.  Rare calls (a yearly report) may not be in the window: read it.
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    verb = verbs.add_parser(
        "suggest",
        help="what recorded traffic says: unused, too wide, refused; as a patch",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument(
        "policy",
        metavar="FILE|DIR",
        type=Path,
        nargs="?",
        help="the text (default: ./everyhop.yaml if it is in force)",
    )
    verb.add_argument("--since", metavar="TIME", default="30d", help="24h, 30d, or a time (default: 30d)")
    verb.add_argument(
        "--open", action="store_true", help="put what would let refused calls in into the patch"
    )
    verb.add_argument(
        "-o",
        "--output",
        choices=["text", "json", "patch"],
        default="text",
        help="text (default), json or patch",
    )
    add_state(verb)
    verb.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from everyhop.authz import Engine
    from everyhop.authz.narrowing import Narrowed, narrow
    from everyhop.authz.suggesting import candidates, narrowings
    from everyhop.cli.policy_at_hand import policy_at_hand
    from everyhop.cli.traffic import read_traffic
    from everyhop.policy.patch import unified_diff

    traffic = read_traffic(args)
    policy = policy_at_hand(args)
    engine = Engine(policy.snapshot)
    found = [] if traffic.left_out else narrowings(engine, traffic.groups)
    opening, hostile = candidates(engine, traffic.groups)
    if policy.files is None:
        changed = Narrowed(files={}, done=(), left=tuple((n, "the text in force is not here") for n in found))
        patch = None
    else:
        changed = narrow(policy.snapshot, policy.files, found)
        files: Mapping[str, bytes] = _opened(changed.files, opening) if args.open else changed.files
        patch = unified_diff(policy.files, files)
    if args.output == "patch":
        return _print_patch(traffic, patch)
    if args.output == "json":
        print_json(
            {
                **traffic.to_dict(),
                "narrow": [n.to_dict() for n in changed.done],
                "not_changed": [{**n.to_dict(), "why": why} for n, why in changed.left],
                "candidates": [c.to_dict() for c in opening],
                "callers_left_out": hostile,
                "patch": patch,
            }
        )
        return OK
    _print(traffic, policy, changed, opening, hostile)
    if patch:
        print("\npatch:")
        print(patch, end="")
    return OK


def _opened(files: Mapping[str, bytes], opening: Sequence[Candidate]) -> dict[str, bytes]:
    """Add what lets refused calls in, as far as each was tried."""
    from functools import partial

    from everyhop.authz.suggesting import is_let_in
    from everyhop.authz.trying import try_edits

    changed = dict(files)
    done: set[tuple[tuple[str, ...], str]] = set()
    for found in opening:
        edits = [
            e for e in (found.suggestion.edits if found.suggestion else ()) if (e.path, e.yaml) not in done
        ]
        tried = try_edits(changed, edits, partial(is_let_in, found.seen)) if edits else None
        if tried is not None:
            changed = tried
            done |= {(edit.path, edit.yaml) for edit in edits}
    return changed


def _print_patch(traffic: Traffic, patch: str | None) -> int:
    for line in traffic.limits():
        say(line)
    if patch is None:
        say("the policy in force is not the text here: name it")
    print(patch or "", end="")
    return OK


def _print(
    traffic: Traffic,
    policy: PolicyAtHand,
    changed: Narrowed,
    opening: Sequence[Candidate],
    hostile: Sequence[str],
) -> None:
    start = traffic.window_from
    shown = "never" if start is None else f"{start:%Y-%m-%dT%H:%M:%SZ}"
    print(f"{traffic.counted} decisions, recorded since {shown}")
    for line in traffic.limits():
        print(f"  {line}")
    if traffic.left_out:
        print("  so nothing is said about what was not used")
    if changed.done or changed.left:
        print("\nwider than its use:")
    for narrowing in changed.done:
        print(f"  {narrowing.message} ({_evidence(narrowing.to_dict())}) at {narrowing.span}")
    for narrowing, why in changed.left:
        print(f"  {narrowing.message} ({_evidence(narrowing.to_dict())}) at {narrowing.span}")
        print(f"    not in the patch: {why}")
    if any(n.rule is not None and n.is_unused for n in changed.done):
        print(
            "  (rules without an id of their own are named by position: those behind a removed one move up)"
        )
    if opening:
        print("\nrefused, and a candidate:")
    for candidate in opening:
        seen = candidate.seen
        print(f"  {seen.count}x  {printable(f'{candidate.caller} -> {seen.what}')}  {seen.reason}")
        print(f"      {_evidence(seen.evidence())}, e.g. everyhop why {seen.example}")
        if candidate.note:
            print(f"      {candidate.note}")
        for edit in candidate.suggestion.edits if candidate.suggestion else ():
            print(f"      to let it in: add to {'.'.join(edit.path)}: {printable(edit.yaml)}")
    if hostile:
        print(f"\nleft out, for they were seen with attacks only: {', '.join(hostile)}")
    if not (changed.done or changed.left or opening):
        print("nothing to suggest")
    if policy.files is None:
        print("\nno patch: the policy in force is not the text here; name the file")


def _evidence(use: Mapping[str, object]) -> str:
    if not use["count"]:
        return "0 calls"
    return f"{use['count']} calls, {str(use['first'])[:19]}Z to {str(use['last'])[:19]}Z"
