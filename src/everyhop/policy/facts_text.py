# SPDX-License-Identifier: Apache-2.0
"""The facts of a call as text: a mapping with the keys that an entry of ``tests`` has for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from everyhop.core.errors import InputError
from everyhop.policy._directory import DirectoryReader
from everyhop.policy._problems import Problems
from everyhop.policy._tests import TestReader
from everyhop.policy._yaml import read_yaml
from everyhop.policy.canonical import facts_entry

if TYPE_CHECKING:
    from everyhop.policy.facts import Context
    from everyhop.policy.model import Snapshot


def parse_facts(text: str, snapshot: Snapshot) -> Context:
    """Parse facts, e.g. ``{"user": {"id": "alice", "roles": ["clerk"]}, "at": "2026-01-02T03:04:05Z"}``.

    Keys are ``user``, ``at``, ``headers``, ``source_ip``, ``device`` and ``resource``; attributes are those that the
    snapshot declares.  Any name may be a role: what it grants is for the policy to say.  Raises InputError with the
    first thing that is wrong.
    """
    if not text.strip():
        raise InputError("the facts are empty", hint="{} says that nothing is known")
    problems = Problems()
    node = read_yaml("facts", text.encode("utf-8", "surrogatepass"), problems)
    context = None
    if node is not None:
        directory = DirectoryReader({}, {}, snapshot.attributes, problems)
        context = TestReader({}, snapshot.attributes, directory, problems).facts(node)
    for problem in problems:
        raise InputError(f"{problem.span}: {problem.message}", hint=problem.suggestion)
    if context is None:  # pragma: no cover  # a text without a node has a problem
        raise InputError("the facts cannot be read")
    return context


def facts_document(context: Context) -> dict[str, Any]:
    """Return the facts as plain values of JSON, such that :func:`parse_facts` gives them back."""
    return facts_entry(context)
