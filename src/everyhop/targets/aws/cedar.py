# SPDX-License-Identifier: Apache-2.0
"""Routes and roles as conditions of Cedar.

Cedar's ``like`` has one wildcard, which takes slashes too.  A template is therefore written with the number of its slashes: no more
than its own, none at the end of a last parameter.  Whatever could have a second reading is forbidden: empty and dot segments, the
characters that everyhop refuses, and every ``%``, as it is nowhere said whether Verified Access decodes a path.  It is
not said either whether a path has its first slash; both are taken, for on the wire it always has it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from everyhop.policy.model import SegmentKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from everyhop.policy.model import Route

PATH: Final = "context.http_request.path"
HOST: Final = "context.http_request.hostname"
METHOD: Final = "context.http_request.http_method"
_REFUSED: Final = '%;\\#<>"{}|^` '
_CONTROL: Final = (*range(0x20), 0x7F)
_DOTS: Final = ("*/./*", "*/../*", "*/.", "*/..", "./*", "../*", ".", "..")


def forbid_ambiguous() -> str:
    """Return a statement that refuses every path with more than one reading, whatever else permits it."""
    patterns = [f"*{character}*" for character in _REFUSED] + ["*//*", *_DOTS]
    texts = [_like(pattern) for pattern in patterns] + [
        f'{PATH} like "*\\u{{{code:x}}}*"' for code in _CONTROL
    ]
    joined = "\n  || ".join(texts)
    return f"// Paths with more than one reading.\nforbid (principal, action, resource)\nwhen {{\n  {joined}\n}};\n"


def route_condition(route: Route, without: Iterable[Route]) -> str:
    """Return what holds for the method and the paths of a route and of none of ``without``."""
    parts = [f"{METHOD} == {json.dumps(route.method)}", _path(route)]
    parts += [f"!({_path(other)})" for other in without]
    return " && ".join(parts)


def has_form(route: Route) -> bool:
    """Tell whether a route can be matched: not one with a parameter before a rest, as the parameter would take slashes."""
    kinds = {segment.kind for segment in route.segments}
    return not {SegmentKind.PARAMETER, SegmentKind.REST} <= kinds


def roles_condition(provider: str, claim: Sequence[str], roles: Iterable[str]) -> str:
    """Return what holds where a claim of the provider, a list, has one of the roles."""
    place = f"context.{provider}"
    guards = [f"context has {json.dumps(provider)}"]
    for name in claim:
        guards.append(f"{place} has {json.dumps(name)}")
        place = f"{place}[{json.dumps(name)}]"
    wanted = ", ".join(json.dumps(role) for role in sorted(roles))
    return " && ".join((*guards, f"{place}.containsAny([{wanted}])"))


def permit(conditions: Iterable[str], note: str) -> str:
    """Return one statement; the scope stays open, as Verified Access demands."""
    text = "\n  && ".join(f"({condition})" for condition in conditions)
    line = " ".join(note.split())
    return f"// {line}\npermit (principal, action, resource)\nwhen {{\n  {text}\n}};\n"


def _path(route: Route) -> str:
    if route.is_literal:
        both = ", ".join(json.dumps(text) for text in (route.template, route.template[1:]))
        return f"[{both}].contains({PATH})"
    with_slash, bare = ("/".join(("", *_globs(route))), "/".join(_globs(route)))
    slashes = len(route.segments)
    is_rest = route.segments[-1].kind is SegmentKind.REST
    choices = []
    for pattern, count in ((with_slash, slashes), (bare, slashes - 1)):
        bounds = [f"!({_like('/*')})"] if pattern == bare else []
        bounds += [] if is_rest else [f"!({_like('*' + '/*' * (count + 1))})"]
        choices.append(" && ".join((_like(pattern), *bounds)))
    text = f"({choices[0]}) || ({choices[1]})"
    if route.segments[-1].kind is not SegmentKind.PARAMETER:
        return f"({text})"
    return f'({text}) && !({_like("*/")}) && {PATH} != ""'


def _globs(route: Route) -> list[str]:
    return [_escaped(s.text) if s.kind is SegmentKind.LITERAL else "*" for s in route.segments]


def _escaped(text: str) -> str:
    return text.replace("*", "\0")  # a star that is meant as itself; written by _like


def _like(pattern: str) -> str:
    text = json.dumps(pattern.replace("\0", "\ue000"), ensure_ascii=False).replace("\ue000", "\\*")
    return f"{PATH} like {text}"
