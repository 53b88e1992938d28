# SPDX-License-Identifier: Apache-2.0
"""``everyhop log shadow``: what would break, and what would open, if what is only watched came into force."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.cli.arguments import add_policy, add_verb
from everyhop.cli.exit_codes import FAILED, OK
from everyhop.cli.output import print_json, printable, wants_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from everyhop.authz.watched import Finding
    from everyhop.cli.policy_at_hand import PolicyAtHand

_EPILOG = """\
examples:
  everyhop log shadow                    the last 24 hours
  everyhop log shadow --since 7d -o json

The patch adds what calls would need to go on.  Read it: not every call that was seen is one that should go on.
exit codes: 0 · with --check: 1 when something would break
"""


def add_shadow(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    text = "what would break if what is only watched came into force"
    verb = add_verb(verbs, "shadow", _run, _EPILOG, text)
    verb.add_argument("--since", metavar="TIME", default="24h", help="24h, 7d, or a time (default: 24h)")
    verb.add_argument("--check", action="store_true", help="exit with 1 when something would break")
    add_policy(verb, what="the text to make the patch for (default: ./everyhop.yaml if it is in force)")


def _run(args: argparse.Namespace) -> int:
    from everyhop.authz.watched import watched_findings
    from everyhop.cli.policy_at_hand import policy_at_hand
    from everyhop.cli.traffic import read_traffic

    traffic = read_traffic(args, only_shadow=True)
    policy = policy_at_hand(args)
    findings = watched_findings(policy.snapshot, traffic.groups)
    breaking = [f for f in findings if f.breaks]
    opening = [f for f in findings if not f.breaks]
    patch = _patch(policy, breaking)
    code = FAILED if breaking and args.check else OK
    if wants_json(args):
        print_json(
            {
                **traffic.to_dict(),
                "would_break": [f.to_dict() for f in breaking],
                "would_open": [f.to_dict() for f in opening],
                "patch": patch,
            }
        )
        return code
    for line in traffic.limits():
        print(line)
    _print("would break", breaking)
    _print("would open", opening)
    if not findings:
        print("nothing would change")
    if patch:
        print("patch that keeps these calls (read it before you apply it):")
        print(patch, end="")
    return code


def _print(title: str, findings: Sequence[Finding]) -> None:
    if not findings:
        return
    print(f"{title}: {sum(f.seen.count for f in findings)} calls")
    for found in findings:
        seen = found.seen
        rule = f" by {found.rule.id} at {found.rule.span}" if found.rule else ""
        print(f"  {seen.count}x  {printable(f'{found.caller} -> {seen.what}')}  {seen.would_reason}{rule}")
        when = f"{seen.first:%Y-%m-%dT%H:%M:%SZ} to {seen.last:%Y-%m-%dT%H:%M:%SZ}"
        print(f"      {when}, e.g. everyhop why {seen.example}")
        if found.note:
            print(f"      {found.note}")
        for edit in found.suggestion.edits if found.suggestion else ():
            print(f"      to keep it: add to {'.'.join(edit.path)}: {printable(edit.yaml)}")
        if found.suggestion and found.suggestion.also_opens:
            print(f"      which also opens it to {', '.join(found.suggestion.also_opens)}")


def _patch(policy: PolicyAtHand, findings: Sequence[Finding]) -> str | None:
    """Return all additions as one patch; those that cannot be tried together are left out, one by one."""
    from functools import partial

    from everyhop.authz.trying import try_edits
    from everyhop.authz.watched import goes_on
    from everyhop.policy.patch import unified_diff

    if policy.files is None:
        return None
    files = dict(policy.files)
    done: set[tuple[tuple[str, ...], str]] = set()
    for found in findings:
        edits = [
            e for e in (found.suggestion.edits if found.suggestion else ()) if (e.path, e.yaml) not in done
        ]
        changed = try_edits(files, edits, partial(goes_on, found.seen)) if edits else None
        if changed is not None:
            files = changed
            done |= {(edit.path, edit.yaml) for edit in edits}
    return unified_diff(policy.files, files) or None
