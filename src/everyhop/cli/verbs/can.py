# SPDX-License-Identifier: Apache-2.0
"""``everyhop can``: may this caller do this there, under these facts, and why."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from everyhop.cli.arguments import add_output, add_policy, add_state
from everyhop.cli.exit_codes import DENIED, OK
from everyhop.cli.facts import add_facts, stated_by
from everyhop.cli.output import print_json, wants_json

if TYPE_CHECKING:
    from everyhop.authz import Engine, Explanation
    from everyhop.authz.considered import Considered
    from everyhop.cli.policy_at_hand import PolicyAtHand
    from everyhop.policy.facts import Context

_EPILOG = """\
examples:
  everyhop can storefront 'GET /orders/7' orders
  everyhop can storefront 'POST /orders' orders --user alice --role clerk --mfa --explain
  everyhop can spiffe://shop.example/service/orders 'POST /v1/charges' payments --policy everyhop.yaml
  everyhop can orders tcp ledger
  everyhop can storefront 'GET /orders/7' orders --facts '{"user": {"id": "alice", "roles": ["clerk"]}}'

exit codes: 0 allowed · 3 denied
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "can",
        help="may this caller do this there? with the reason",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("caller", metavar="FROM", help="a service, a SPIFFE ID, or outside")
    parser.add_argument("call", metavar="CALL", help="'METHOD /path', or tcp")
    parser.add_argument("target", metavar="SERVICE")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="every rule that is about the call, each clause with its value, and the fix as a patch",
    )
    add_facts(parser)
    parser.add_argument(
        "--facts",
        metavar="JSON",
        help="all facts at once, with the keys of a policy test: user, at, headers, source_ip, device, resource",
    )
    add_policy(
        parser,
        what="decide by this policy instead of the one in force (default: ./everyhop.yaml when nothing is up)",
    )
    add_state(parser)
    add_output(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from everyhop.authz import Engine
    from everyhop.cli.policy_at_hand import policy_at_hand
    from everyhop.core.errors import InputError
    from everyhop.policy.facts_text import parse_facts
    from everyhop.policy.stated import read_stated
    from everyhop.runtime.system import SystemClock

    policy = policy_at_hand(args)
    engine = Engine(policy.snapshot)
    stated = stated_by(args)
    if args.facts is not None and not stated.is_empty:
        raise InputError("give facts by --facts, or by the other options")
    if args.facts is not None:
        asked = _Asked(args, engine, parse_facts(args.facts, policy.snapshot))
        explanation = asked.explain()
    else:
        context = read_stated(policy.snapshot, stated, now=SystemClock().now())
        asked = _Asked(args, engine, None if stated.is_empty else context)
        explanation = asked.explain()
        if stated.is_empty and explanation.decision.reason in asked.facts_reasons:
            asked = _Asked(args, engine, context)  # the time at least is known
            explanation = asked.explain()
    block = _block_of(args, asked.caller)
    patch = _patch(policy, asked, explanation)
    rules = asked.considered() if args.explain else ()
    if wants_json(args):
        answer: dict[str, Any] = {**explanation.to_dict(), "patch": patch, "block": block}
        if args.explain:
            answer["rules"] = [rule.to_dict() for rule in rules]
        print_json(answer)
    else:
        if block is not None:
            _print_block(block)
        print(explanation.render())
        if args.explain:
            _print_rules(rules)
            _print_patch(explanation, patch, has_files=policy.files is not None)
    return OK if explanation.decision.is_allowed and block is None else DENIED


def _block_of(args: argparse.Namespace, caller: str) -> dict[str, Any] | None:
    """Return the block in force of the caller or its user, where the question is about what is in force."""
    from everyhop.cli.arguments import admin
    from everyhop.core.errors import EveryhopError

    if args.policy is not None:
        return None
    try:
        blocks = admin(args).get("/v1/blocks")["blocks"]
    except EveryhopError:  # nothing is up: the question is about a text
        return None
    asked = {f"identity:{caller}", f"user:{args.user}"}
    found: dict[str, Any] | None = next((b for b in blocks if b["subject"] in asked), None)
    return found


def _print_block(block: dict[str, Any]) -> None:
    from everyhop.cli.output import printable

    print(printable(f"deny: {block['subject']} is blocked for now, whatever the policy says"))
    print(printable(f"  by {block['by']} until {block['until'] or 'somebody lifts it'}: {block['reason']}"))
    print(printable(f"  to lift it: everyhop unblock {block['service'] or block['subject']} --reason '…'"))
    print("\nwithout that:")


class _Asked:
    """The question, to be put to more than one engine."""

    def __init__(self, args: argparse.Namespace, engine: Engine, context: Context | None) -> None:
        from everyhop.core.decision import Reason
        from everyhop.core.errors import InputError
        from everyhop.policy.model import OUTSIDE

        self.facts_reasons = {
            Reason.CONDITION_ERROR,
            Reason.CONDITION_FALSE,
            Reason.USER_REQUIRED,
        }
        self.engine, self.context, self.target = engine, context, args.target
        snapshot = engine.snapshot
        if args.caller.startswith("spiffe:") or args.caller == OUTSIDE:
            self.caller = args.caller
        elif args.caller in snapshot.services:
            self.caller = str(snapshot.services[args.caller].spiffe_id)
        else:
            self.caller = f"spiffe://{snapshot.trust_domain}/service/{args.caller}"
        self.method: str | None = None
        self.path: str | None = None
        if args.call != "tcp":
            method, space, path = args.call.partition(" ")
            if not space:
                raise InputError(
                    f"not a call: {args.call!r}", hint="write 'METHOD /path', e.g. 'GET /orders', or tcp"
                )
            self.method, self.path = method, path

    def explain(self, engine: Engine | None = None) -> Explanation:
        engine = engine or self.engine
        if self.method is None or self.path is None:
            return engine.explain_tcp(caller=self.caller, target=self.target, context=self.context)
        return engine.explain(
            caller=self.caller,
            target=self.target,
            method=self.method,
            path=self.path,
            context=self.context,
        )

    def considered(self) -> tuple[Considered, ...]:
        from everyhop.authz.considered import considered
        from everyhop.policy.access import TCP

        if self.method is None or self.path is None:
            door = self.engine.door(self.target, TCP)
        else:
            door = self.engine.find(self.target, self.method, self.path)
        if door is None or self.engine.name_of(self.caller) is None:
            return ()
        return considered(
            self.engine, self.engine.call(door, self.caller, self.context, self.method, self.path)
        )


def _patch(policy: PolicyAtHand, asked: _Asked, explanation: Explanation) -> str | None:
    """Return the smallest change that would allow the call, which was tried; None where there is none."""
    from everyhop.authz.trying import try_edits
    from everyhop.policy.patch import unified_diff

    if explanation.suggestion is None or policy.files is None:
        return None
    changed = try_edits(
        policy.files,
        explanation.suggestion.edits,
        lambda engine: asked.explain(engine).decision.is_allowed,
    )
    return None if changed is None else unified_diff(policy.files, changed)


def _print_rules(rules: tuple[Considered, ...]) -> None:
    print("\nrules about this call:" if rules else "\nno rule is about this call")
    for rule in rules:
        for line in rule.render():
            print(line)


def _print_patch(explanation: Explanation, patch: str | None, *, has_files: bool) -> None:
    if explanation.decision.is_allowed:
        return
    if patch is not None:
        print("\npatch (tried: with it the call is allowed, and the policy's own tests pass):")
        print(patch, end="")
    elif explanation.suggestion is None:
        print("\nno change of the policy is suggested: the facts, the caller or a deny rule stand in the way")
    elif has_files:
        print("\nno patch: with the change, the call is still denied or one of the policy's own tests fails")
    else:
        print("\nno patch: the policy in force is not the text here; name it with --policy")
