# SPDX-License-Identifier: Apache-2.0
"""RBAC by a matcher tree (``matcher`` instead of ``rules``; api xds/type/matcher/v3, config/rbac/v3 Action).

A tree ends at an action; where nothing matches at all the filter denies.  So it does where the tree asks for a name of a
certificate on a connection without TLS: that is not absent but not to be had, and nothing after it is looked at.  A tree inside of another without its own ``on_no_match``
is refused, since what happens then differs between releases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.envoy_json import member, only, type_name
from everyhop.evaluators.envoy_matchers import string_matcher

if TYPE_CHECKING:
    from everyhop.evaluators.envoy_rbac import Attempt

_ACTION: Final = "envoy.config.rbac.v3.Action"
_ACTIONS: Final = frozenset({"ALLOW", "DENY", "LOG"})
_INPUTS: Final = "envoy.extensions.matching.common_inputs."
_HEADER: Final = "envoy.type.matcher.v3.HttpRequestHeaderMatchInput"

Input = Callable[["Attempt"], str | None]
Decide = Callable[["Attempt"], "Decision | None"]
Predicate = Callable[["Attempt"], bool]


class Undecided(Exception):  # noqa: N818  # an outcome: the tree asks for what the connection cannot tell
    """Raised by a tree that asks for what there can be none of; the filter denies then."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The action at which a tree ended, with its name."""

    action: str
    name: str

    @property
    def allows(self) -> bool:
        """Tell whether the attempt passes; LOG lets everything pass."""
        return self.action != "DENY"


def read_tree(value: Any) -> Decide:
    """Read an ``xds.type.matcher.v3.Matcher`` whose leaves are RBAC's actions; raises InputError for what is not known here."""
    return _matcher(value, is_inner=False)


def _matcher(value: Any, *, is_inner: bool) -> Decide:
    only(value, "matcher_tree", "matcher_list", "on_no_match")
    tree, several = member(value, "matcher_tree"), member(value, "matcher_list")
    otherwise = member(value, "on_no_match")
    if (tree is None) == (several is None):
        raise InputError("a matcher is a tree or a list")
    if otherwise is None and is_inner:
        raise InputError("a matcher inside of another says what happens where it does not match")
    found = _tree(tree) if several is None else _list(several)
    rest = None if otherwise is None else _on_match(otherwise)

    def decide(attempt: Attempt) -> Decision | None:
        decision = found(attempt)
        if decision is None and rest is not None:
            return rest(attempt)
        return decision

    return decide


def _on_match(value: Any) -> Decide:
    only(value, "action", "matcher")
    inner, action = member(value, "matcher"), member(value, "action")
    if (inner is None) == (action is None):
        raise InputError("a match leads to an action or to another matcher")
    if action is None:
        return _matcher(inner, is_inner=True)
    only(action, "name", "typed_config")
    config = member(action, "typed_config", {})
    if type_name(config) != _ACTION:
        raise InputError("an action of RBAC is envoy.config.rbac.v3.Action")
    only(config, "@type", "name", "action")
    kind = member(config, "action", "ALLOW")
    if kind not in _ACTIONS:
        raise InputError(f"RBAC has no action {kind!r}")
    decision = Decision(kind, member(config, "name", ""))
    return lambda _attempt: decision


def _tree(value: Any) -> Decide:
    only(value, "input", "exact_match_map", "prefix_match_map")
    read = _input(member(value, "input"))
    exact, prefixes = member(value, "exact_match_map"), member(value, "prefix_match_map")
    if (exact is None) == (prefixes is None):
        raise InputError("a tree has one map")
    written = exact if prefixes is None else prefixes
    only(written, "map")
    branches = {key: _on_match(one) for key, one in member(written, "map", {}).items()}

    def decide(attempt: Attempt) -> Decision | None:
        found = read(attempt)
        if found is None:
            return None
        if prefixes is None:
            branch = branches.get(found)
        else:
            fitting = (key for key in branches if found.startswith(key))
            branch = branches.get(max(fitting, key=len, default=""))
        return None if branch is None else branch(attempt)

    return decide


def _list(value: Any) -> Decide:
    only(value, "matchers")
    made: list[tuple[Predicate, Decide]] = []
    for one in member(value, "matchers", ()):
        only(one, "predicate", "on_match")
        made.append((_predicate(member(one, "predicate")), _on_match(member(one, "on_match"))))

    def decide(attempt: Attempt) -> Decision | None:
        return next((branch(attempt) for holds, branch in made if holds(attempt)), None)

    return decide


def _predicate(value: Any) -> Predicate:
    only(value, "single_predicate", "or_matcher", "and_matcher", "not_matcher")
    if len(value) != 1:
        raise InputError("a predicate has exactly one member")
    single, negated = member(value, "single_predicate"), member(value, "not_matcher")
    if single is not None:
        only(single, "input", "value_match")
        read, matches = _input(member(single, "input")), string_matcher(member(single, "value_match"))

        def holds(attempt: Attempt) -> bool:
            found = read(attempt)
            return found is not None and matches(found)

        return holds
    if negated is not None:
        refused = _predicate(negated)
        return lambda attempt: not refused(attempt)
    every = member(value, "and_matcher")
    held = member(value, "or_matcher") if every is None else every
    only(held, "predicate")
    inner = [_predicate(one) for one in member(held, "predicate", ())]
    if every is None:
        return lambda attempt: _any(inner, attempt)
    return lambda attempt: all(one(attempt) for one in inner)


def _any(predicates: Iterable[Predicate], attempt: Attempt) -> bool:
    """One that holds is enough, also after one that cannot be told."""
    undecided: Undecided | None = None
    for one in predicates:
        try:
            if one(attempt):
                return True
        except Undecided as error:
            undecided = error
    if undecided is not None:
        raise undecided
    return False


def _input(value: Any) -> Input:
    only(value, "name", "typed_config")
    config = member(value, "typed_config", {})
    name = type_name(config)
    if name == _HEADER:
        only(config, "@type", "header_name")
        header = member(config, "header_name", "").lower()
        return lambda attempt: attempt.headers.get(header)
    if name == f"{_INPUTS}network.v3.FilterStateInput":
        only(config, "@type", "key")
        key = member(config, "key", "")
        return lambda attempt: attempt.filter_state.get(key)
    only(config, "@type")
    if name not in _PLAIN:
        raise InputError(f"the input {name!r} is not known here")
    return _PLAIN[name]


def _of_certificate(names: Callable[[Attempt], tuple[str, ...]]) -> Input:
    def read(attempt: Attempt) -> str | None:
        if not attempt.is_tls:
            raise Undecided
        return ",".join(names(attempt)) or None

    return read


_PLAIN: Final[Mapping[str, Input]] = {
    f"{_INPUTS}ssl.v3.UriSanInput": _of_certificate(lambda attempt: attempt.uris),
    f"{_INPUTS}ssl.v3.DnsSanInput": _of_certificate(lambda attempt: attempt.dns_names),
    f"{_INPUTS}network.v3.DestinationPortInput": lambda attempt: str(attempt.port),
    f"{_INPUTS}network.v3.ServerNameInput": lambda attempt: attempt.server_name or None,
}
