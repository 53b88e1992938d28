# SPDX-License-Identifier: Apache-2.0
"""Narrow rules and grants in a policy's text, and prove that exactly that was done and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from everyhop.authz.trying import tried
from everyhop.core.errors import EveryhopError, InputError
from everyhop.policy.edit import Place, append_entry, entry_at, list_at, remove_entry, replace_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from everyhop.authz.suggesting import Narrowing
    from everyhop.policy.model import Role, Rule, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed:
    """The changed files, what was changed, and what was not, with why."""

    files: dict[str, bytes]
    done: tuple[Narrowing, ...]
    left: tuple[tuple[Narrowing, str], ...]


@dataclass(frozen=True, slots=True)
class _Located:
    narrowing: Narrowing
    file: str
    place: Place


def narrow(snapshot: Snapshot, files: Mapping[str, bytes], wanted: Sequence[Narrowing]) -> Narrowed:
    """Return the files with everything narrowed that can be; ``snapshot`` is what ``files`` mean.

    All at once where the result is exactly what was meant and passes the policy's own tests; else one by one, leaving out
    those of which that is not so.
    """
    located, left = _locate(files, wanted)
    changed = _attempt(snapshot, files, located)
    if changed is not None:
        return Narrowed(files=changed, done=tuple(item.narrowing for item in located), left=tuple(left))
    kept: list[_Located] = []
    best = dict(files)
    for item in located:
        changed = _attempt(snapshot, files, [*kept, item])
        if changed is None:
            left.append((item.narrowing, "a test of the policy needs it, or the text cannot be changed so"))
        else:
            kept.append(item)
            best = changed
    return Narrowed(files=best, done=tuple(item.narrowing for item in kept), left=tuple(left))


def _locate(
    files: Mapping[str, bytes], wanted: Iterable[Narrowing]
) -> tuple[list[_Located], list[tuple[Narrowing, str]]]:
    """Find the places before anything moves."""
    located, left = [], []
    for narrowing in wanted:
        span = narrowing.span
        content = files.get(span.file)
        try:
            if content is None:
                raise InputError(f"{span.file} is not at hand")
            if narrowing.role is None:
                place: Place = ("allow", entry_at(content, "allow", span.line, span.column))
            else:
                place = _place_of_grant(content, narrowing.role, str(narrowing.grant))
        except InputError as error:
            left.append((narrowing, error.message))
        else:
            located.append(_Located(narrowing, span.file, place))
    return located, left


def _place_of_grant(content: bytes, role: Role, grant: str) -> Place:
    for path in (("roles", role.name), ("roles", role.name, "grants")):
        found = list_at(content, path)
        if isinstance(found, tuple) and grant in found:
            return (*path, found.index(grant))
    raise InputError(f"role {role.name} does not grant {grant} in this text")


def _attempt(
    snapshot: Snapshot, files: Mapping[str, bytes], located: Sequence[_Located]
) -> dict[str, bytes] | None:
    """Return the changed files if they mean exactly what is wanted, else None."""
    changed = dict(files)
    try:
        # From the end of each list, so that what is still to be done stays where it was found.
        for item in sorted(located, key=lambda item: _order(item.place), reverse=True):
            changed[item.file] = _changed(changed[item.file], item)
    except EveryhopError:
        return None
    engine = tried(changed)
    if engine is None or not means(engine.snapshot, snapshot, [item.narrowing for item in located]):
        return None
    return changed


def _order(place: Place) -> tuple[str, int]:
    last = place[-1]
    return ".".join(str(step) for step in place[:-1]), last if isinstance(last, int) else 0


def _changed(content: bytes, item: _Located) -> bytes:
    narrowing, place = item.narrowing, item.place
    if narrowing.is_unused:
        return remove_entry(content, place)
    if narrowing.role is not None:
        first, *others = narrowing.keep["grants"]
        content = replace_value(content, place, first)
        path = [str(step) for step in place[:-1]]
        held = list_at(content, place[:-1]) or ()
        for grant in others:
            content = content if grant in held else append_entry(content, path, grant)
        return content
    for key, values in narrowing.keep.items():
        content = _keep(content, (*place, key), values)
    return content


def _keep(content: bytes, place: Place, values: tuple[str, ...]) -> bytes:
    """Leave only these names in a list, or put them in place of ``any`` and ``all``."""
    found = list_at(content, place)
    if isinstance(found, tuple):
        for index in range(len(found) - 1, -1, -1):
            if found[index] not in values:
                content = remove_entry(content, (*place, index))
        return content
    is_one = len(values) == 1 and place[-1] != "operations"
    return replace_value(content, place, values[0] if is_one else f"[{', '.join(values)}]")


def means(after: Snapshot, before: Snapshot, done: Iterable[Narrowing]) -> bool:
    """Tell whether a policy is another one with exactly these narrowings; unnamed rules may have other ids."""
    by_rule = {id(n.rule): n for n in done if n.rule is not None}
    rules = [
        rule if narrowing is None else _narrowed(rule, narrowing)
        for rule in before.rules
        if (narrowing := by_rule.get(id(rule))) is None or not narrowing.is_unused
    ]
    roles = dict(before.roles)
    for narrowing in done:
        if narrowing.role is not None:
            roles[narrowing.role.name] = _less(roles[narrowing.role.name], narrowing)
    return (
        [_shape(rule) for rule in rules] == [_shape(rule) for rule in after.rules]
        and roles == dict(after.roles)
        and _rest(before) == _rest(after)
    )


def _narrowed(rule: Rule, narrowing: Narrowing) -> Rule:
    keep = {key: frozenset(values) for key, values in narrowing.keep.items()}
    return replace(
        rule,
        callers=keep.get("from", rule.callers),
        targets=keep.get("to", rule.targets),
        operations=keep.get("operations", rule.operations),
    )


def _less(role: Role, narrowing: Narrowing) -> Role:
    service, _, operation = str(narrowing.grant).partition(".")
    grants = role.grants - {(service, None if operation == "*" else operation)}
    for grant in narrowing.keep.get("grants", ()):
        name, _, kept = grant.partition(".")
        grants |= {(name, kept)}
    return replace(role, grants=frozenset(grants))


def _shape(rule: Rule) -> tuple[object, ...]:
    is_named = not rule.id.endswith("]")
    return (
        rule.effect,
        rule.callers,
        rule.targets,
        rule.operations,
        rule.reason,
        rule.user,
        rule.when,
        rule.mode,
        rule.id if is_named else None,
    )


def _rest(snapshot: Snapshot) -> tuple[object, ...]:
    return (
        snapshot.trust_domain,
        dict(snapshot.services),
        snapshot.tests,
        snapshot.user_issuers,
        snapshot.mode,
        snapshot.attributes,
        snapshot.shadow_edges,
        snapshot.directory,
    )
