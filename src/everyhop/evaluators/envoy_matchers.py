# SPDX-License-Identifier: Apache-2.0
"""Envoy's matchers of texts, headers and metadata (api type/matcher/v3, config/route/v3 HeaderMatcher)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from everyhop.core.errors import InputError
from everyhop.evaluators.envoy_json import member, only, snake

Matches = Callable[[str], bool]


def string_matcher(value: Any) -> Matches:
    """Return what a StringMatcher matches: exact, prefix, suffix, contains or a regular expression over the **whole** text.

    ``ignore_case`` folds ASCII case and has no meaning for a regular expression, where it is refused.
    """
    only(value, "exact", "prefix", "suffix", "contains", "safe_regex", "ignore_case")
    ignores = member(value, "ignore_case", False)
    patterns = {snake(key): held for key, held in value.items() if snake(key) != "ignore_case"}
    if len(patterns) != 1:
        raise InputError("a string matcher has one pattern")
    ((kind, written),) = patterns.items()
    if kind == "safe_regex":
        if ignores:
            raise InputError("a regular expression does not ignore case")
        return _regex(written)
    if not isinstance(written, str) or (not written and kind != "exact"):
        raise InputError(f"{kind} holds a text that is not empty")
    wanted = written.lower() if ignores else written

    def folded(found: str) -> str:
        return found.lower() if ignores else found

    match kind:
        case "exact":
            return lambda found: folded(found) == wanted
        case "prefix":
            return lambda found: folded(found).startswith(wanted)
        case "suffix":
            return lambda found: folded(found).endswith(wanted)
        case _:
            return lambda found: wanted in folded(found)


def _regex(value: Any) -> Matches:
    only(value, "regex", "google_re2")
    try:
        pattern = re.compile(member(value, "regex", ""), re.ASCII)
    except (re.error, TypeError) as error:
        raise InputError("this is no regular expression") from error
    return lambda found: pattern.fullmatch(found) is not None


def header_matcher(value: Any) -> Callable[[Mapping[str, str]], bool]:
    """Return what a HeaderMatcher matches; a header that is missing matches nothing, unless ``present_match`` is false.

    ``invert_match`` turns the answer round, but with a pattern a missing header still matches nothing unless
    ``treat_missing_header_as_empty`` is set.
    """
    only(
        value, "name", "present_match", "string_match", "invert_match", "treat_missing_header_as_empty",
        "exact_match", "prefix_match", "suffix_match", "contains_match", "safe_regex_match",
    )  # fmt: skip
    name = member(value, "name", "").lower()
    if not name:
        raise InputError("a header matcher has a name")
    inverts = bool(member(value, "invert_match", False))
    as_empty = bool(member(value, "treat_missing_header_as_empty", False))
    matches = _header_pattern(value)
    if matches is None:
        present = member(value, "present_match", True)
        return lambda headers: ((name in headers or as_empty) == present) != inverts

    def test(headers: Mapping[str, str]) -> bool:
        found = headers.get(name, "" if as_empty else None)
        return found is not None and matches(found) != inverts

    return test


def _header_pattern(value: Mapping[str, Any]) -> Matches | None:
    patterns = [key for key in value if snake(key).endswith("_match") and snake(key) != "invert_match"]
    if len(patterns) > 1:
        raise InputError("a header matcher has one pattern")
    kind = snake(patterns[0]).removesuffix("_match") if patterns else "present"
    if kind == "present":
        return None
    held = value[patterns[0]]
    return string_matcher(held if kind == "string" else {kind: held})


def metadata_matcher(value: Any) -> Callable[[Mapping[str, Any]], bool]:
    """Return what a MetadataMatcher matches: the value at ``path`` below the filter's name; a missing one is null."""
    only(value, "filter", "path", "value", "invert")
    name, inverts = member(value, "filter", ""), bool(member(value, "invert", False))
    keys = [member(one, "key", "") for one in member(value, "path", ())]
    matches = value_matcher(member(value, "value"))

    def test(metadata: Mapping[str, Any]) -> bool:
        found: Any = metadata.get(name)
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return matches(found) != inverts

    return test


def value_matcher(value: Any) -> Callable[[Any], bool]:
    """Return what a ValueMatcher matches."""
    only(
        value, "null_match", "string_match", "bool_match", "present_match", "list_match", "or_match", "double_match"
    )  # fmt: skip
    if len(value) != 1:
        raise InputError("a value matcher has one pattern")
    ((key, held),) = value.items()
    match snake(key):
        case "string_match":
            matches = string_matcher(held)
            return lambda found: isinstance(found, str) and matches(found)
        case "bool_match":
            return lambda found: isinstance(found, bool) and found == held
        case "present_match":
            return lambda found: (found is not None) == held
        case "null_match":
            return lambda found: found is None
        case "list_match":
            only(held, "one_of")
            inner = value_matcher(member(held, "one_of"))
            return lambda found: isinstance(found, list | tuple) and any(inner(one) for one in found)
        case "or_match":
            only(held, "value_matchers")
            several = [value_matcher(one) for one in member(held, "value_matchers", ())]
            return lambda found: any(one(found) for one in several)
        case _:
            raise InputError("numbers are not matched here")
