# SPDX-License-Identifier: Apache-2.0
"""The ``users`` part: whose signed-in users are believed."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from everyhop.policy import _grammar as g
from everyhop.policy._fields import is_written, read_fields, read_items, read_match, read_text
from everyhop.policy._nodes import Items, Node, Text
from everyhop.policy.model import ClaimAttribute, UserIssuer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.policy._problems import Problems
    from everyhop.policy.vocabulary import Attribute

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ABSENT = object()
_CLAIM_PATH = rf"{g.CLAIM_NAME}(?:\.{g.CLAIM_NAME}){{0,7}}"


def read_users(
    node: Node, problems: Problems, declared: Mapping[str, Attribute] = MappingProxyType({})
) -> list[UserIssuer]:
    """Return the issuers of one file; ``declared`` are the attributes that users can have."""
    fields = read_fields(node, g.USERS_KEYS, "users", problems)
    if "issuers" not in fields:
        if not is_written("issuers", node):
            problems.add("missing-key", node.span, "users: 'issuers' missing")
        return []
    found = []
    for index, item in enumerate(read_items(fields["issuers"][1], "users: issuers", problems)):
        issuer = _read_issuer(item, f"users: issuers[{index}]", declared, problems)
        if issuer is not None:
            found.append(issuer)
    return found


def check_unique(issuers: list[UserIssuer], problems: Problems) -> None:
    """Note issuers that are configured twice."""
    first: dict[str, UserIssuer] = {}
    for issuer in issuers:
        if first.setdefault(issuer.issuer, issuer) is not issuer:
            message = f"users: the issuer {issuer.issuer[:80]!r} is configured twice"
            problems.add("duplicate", issuer.span, message, f"first at {first[issuer.issuer].span}")


def _read_issuer(
    node: Node, where: str, declared: Mapping[str, Attribute], problems: Problems
) -> UserIssuer | None:
    fields = read_fields(node, g.ISSUER_KEYS, where, problems)
    missing = [key for key in ("issuer", "audience") if key not in fields and not is_written(key, node)]
    if missing:
        problems.add("missing-key", node.span, f"{where}: {' and '.join(map(repr, missing))} missing")
    if not {"issuer", "audience"} <= fields.keys():
        return None
    issuer = _read_url(fields["issuer"][1], f"{where}: issuer", problems)
    jwks: str | object | None = None
    if "jwks" in fields:
        jwks = _read_url(fields["jwks"][1], f"{where}: jwks", problems) or _ABSENT
    audiences = _read_texts(fields["audience"][1], g.AUDIENCE, f"{where}: audience", "an audience", problems)
    roles = _read_roles(fields, where, problems)
    algorithms = _read_algorithms(fields, where, problems)
    attributes = _read_attributes(fields, declared, where, problems)
    if issuer is None or jwks is _ABSENT or not (audiences and roles and algorithms):
        return None
    assert jwks is None or isinstance(jwks, str)  # noqa: S101  # the third case is handled above
    return UserIssuer(
        issuer=issuer,
        audiences=audiences,
        jwks=jwks,
        roles=roles,
        attributes=attributes,
        algorithms=algorithms,
        span=node.span,
    )


def _read_attributes(
    fields: Mapping[str, tuple[Text, Node]], declared: Mapping[str, Attribute], where: str, problems: Problems
) -> tuple[ClaimAttribute, ...]:
    if "attributes" not in fields:
        return ()
    where = f"{where}: attributes"
    found = []
    for name, (_, value) in read_fields(fields["attributes"][1], tuple(declared), where, problems).items():
        text = read_match(value, _CLAIM_PATH, f"{where}: {name}", "the path of a claim", problems)
        if text is not None:
            path = tuple(text.split("."))
            found.append(ClaimAttribute(name=name, type=declared[name].type, path=path))
    return tuple(sorted(found, key=lambda attribute: attribute.name))


def _read_roles(fields: Mapping[str, tuple[Text, Node]], where: str, problems: Problems) -> tuple[str, ...]:
    if "roles" not in fields:
        return ("roles",)
    expected = "the path of a claim, such as roles or realm_access.roles"
    text = read_match(fields["roles"][1], _CLAIM_PATH, f"{where}: roles", expected, problems)
    return () if text is None else tuple(text.split("."))


def _read_algorithms(
    fields: Mapping[str, tuple[Text, Node]], where: str, problems: Problems
) -> tuple[str, ...]:
    if "algorithms" not in fields:
        return g.DEFAULT_USER_ALGORITHMS
    expected = "one of " + ", ".join(g.USER_ALGORITHMS)
    pattern = "|".join(g.USER_ALGORITHMS)
    return _read_texts(fields["algorithms"][1], pattern, f"{where}: algorithms", expected, problems)


def _read_texts(node: Node, pattern: str, where: str, expected: str, problems: Problems) -> tuple[str, ...]:
    """Return one text or a list of them; empty after noting what is wrong."""
    if isinstance(node, Text):
        text = read_match(node, pattern, where, expected, problems)
        return () if text is None else (text,)
    if not isinstance(node, Items):
        read_text(node, where, problems)  # notes what it is
        return ()
    texts: list[str] = []
    for item in read_items(node, where, problems):
        text = read_match(item, pattern, where, expected, problems)
        if text is None:
            return ()
        if text in texts:
            problems.add("duplicate", item.span, f"{where}: {text[:80]!r} is here twice")
        texts.append(text)
    return tuple(texts)


def _read_url(node: Node, where: str, problems: Problems) -> str | None:
    """Return an https URL, or an http one of this machine; no query, fragment or password."""
    text = read_text(node, where, problems)
    if text is None:
        return None
    try:
        if len(text) > g.MAX_URL or not re.fullmatch(r"[!-~]+", text):
            raise ValueError("a URL has no spaces and at most 512 characters")
        parts = urlsplit(text)
        _ = parts.port
        if parts.scheme not in {"https", "http"} or not parts.hostname:
            raise ValueError("write https://host/...")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ValueError("http is for issuers on this machine only")
        if parts.query or parts.fragment or "?" in text or "#" in text or "@" in parts.netloc:
            raise ValueError("no query, fragment or password")
    except ValueError as error:
        problems.add("value", node.span, f"{where}: {text[:80]!r} is not a usable URL", str(error)[:120])
        return None
    return text
