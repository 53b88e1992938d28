# SPDX-License-Identifier: Apache-2.0
"""The policy's own tests as tests of the bundle."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from everyhop.policy.model import RuleEffect

if TYPE_CHECKING:
    from everyhop.policy.facts import Context, User
    from everyhop.policy.model import PolicyTest
    from everyhop.targets.opa.data import Facts
    from everyhop.targets.view import View


def test_module(view: View, facts: Facts, package: str) -> str:
    """Return a module with one test for each entry of ``tests``; one that needs what was left shut is marked as to do."""
    snapshot = view.intents.snapshot
    lines = [f"package {package}_test", "", f"import data.{package} as rules"]
    for number, test in enumerate(snapshot.tests):
        name = f"{'todo_' if _is_shut(facts, test) else ''}test_{number}_{test.expect.value}"
        call = "connection" if test.method is None else f"{test.method} {test.path}"
        lines += [
            "",
            f"# {test.span.file}:{test.span.line}: {_line(f'{test.caller} to {test.target}: {call}')}",
        ]
        given = json.dumps(_asked(view, facts, test), ensure_ascii=True)
        expected = "rules.allow" if test.expect is RuleEffect.ALLOW else "not rules.allow"
        lines += [f"{name} if {{", f"\t{expected} with input as {given}", "}"]
    if not snapshot.tests:
        lines += [
            "",
            "# The policy has no tests.",
            "test_nobody_is_allowed if not rules.allow with input as {}",
        ]
    return "\n".join((*lines, ""))


def input_of(
    caller: str, target: str, method: str | None, path: str | None, context: Context
) -> dict[str, Any]:
    """Return what an enforcement point states of a call; without a method it is a connection.  Tokens are not among it."""
    stated: dict[str, Any] = {"caller": caller, "target": target}
    stated |= {"connection": "tcp"} if method is None else {"method": method, "path": path}
    if context.user is not None:
        stated["user"] = _user(context.user)
    if context.device:
        stated["device"] = {name: _value(value) for name, value in context.device.items()}
    if context.headers:
        stated["headers"] = {name: list(lines) for name, lines in context.headers.items()}
    if context.source_ip is not None:
        stated["source_ip"] = context.source_ip
    return stated


def _user(user: User) -> dict[str, Any]:
    stated: dict[str, Any] = {"id": user.id, "roles": list(user.roles)}
    if user.issuer is not None:
        stated["issuer"] = user.issuer
    if user.amr is not None:
        stated["amr"] = list(user.amr)
    if user.acr is not None:
        stated["acr"] = user.acr
    if user.attributes:
        stated["attributes"] = {name: _value(value) for name, value in user.attributes.items()}
    return stated


def _value(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, bool | int | float | str) else str(value)


def _asked(view: View, facts: Facts, test: PolicyTest) -> dict[str, Any]:
    """Return the input of a test; whatever token the door asks for is there, since the policy's tests say nothing of tokens."""
    snapshot = view.intents.snapshot
    owner = snapshot.services.get(test.caller)
    caller = test.caller if owner is None else str(owner.spiffe_id)
    stated = input_of(caller, test.target, test.method, test.path, test.context)
    name = facts.door_of(test.target, test.method, test.path)
    doors = facts.document["services"].get(test.target, {}).get("doors", {})
    audience = doors.get(name or "", {}).get("audience")
    if audience is not None:
        stated["thumbprint"] = _THUMBPRINT
        stated["token"] = {
            "issuer": facts.document["issuer"],
            "subject": caller,
            "audiences": [audience],
            "thumbprint": _THUMBPRINT,
        }
    return stated


_THUMBPRINT = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"
"""The example of RFC 8705 section 3.1."""


def _is_shut(facts: Facts, test: PolicyTest) -> bool:
    name = facts.door_of(test.target, test.method, test.path)
    return test.expect is RuleEffect.ALLOW and (test.target, name) in facts.shut


def _line(text: str) -> str:
    return " ".join(text.split())[:120]
