# SPDX-License-Identifier: Apache-2.0
"""Users as RequestAuthentication and request principals name them, in the words of the policy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from everyhop.importing.doors import User
from everyhop.policy import _grammar as g

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.importing.istio_rules import Condition, Match
    from everyhop.importing.workloads import Group
    from everyhop.manifests import Manifest

_HTTPS: Final = re.compile(r"https://[A-Za-z0-9.-]{1,253}(?::[1-9][0-9]{0,4})?(?:/[A-Za-z0-9._~/-]*)?")
_PLAIN: Final = re.compile(r"[A-Za-z0-9 _.:/@+-]{1,200}")
_LISTS: Final = frozenset({"groups", "roles", "scopes", "permissions"})
"""Claims that are lists wherever they are met; any other is read as a text, which matches less."""

_CLIENTS: Final = frozenset({("client_id",), ("azp",)})
"""Claims that name a client (RFC 9068 section 2.2; OpenID Connect Core section 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRule:
    """One jwtRule with the object that holds it; ``audiences`` are empty where any is taken."""

    issuer: str
    audiences: frozenset[str]
    jwks: str | None
    namespace: str
    selector: Mapping[str, str]
    is_root: bool
    manifest: Manifest

    def covers(self, group: Group) -> bool:
        """Tell whether it is in force at all pods of a group."""
        return (self.is_root or group.namespace == self.namespace) and group.has(self.selector)


class Users:
    """The issuers of the source, as far as the policy can name them."""

    def __init__(self, rules: Iterable[JwtRule]) -> None:
        self.rules: Final = tuple(rules)
        self.audiences: dict[str, frozenset[str]] = {}
        self.jwks: dict[str, str | None] = {}
        self.attributes: dict[str, tuple[str, str]] = {}
        """Attributes that conditions read: name to type and path of the claim."""
        self.used: set[str] = set()
        for rule in self.rules:
            if not _HTTPS.fullmatch(rule.issuer):
                continue
            known = self.audiences.get(rule.issuer, frozenset())
            both = known & rule.audiences if known and rule.audiences else known or rule.audiences
            self.audiences[rule.issuer] = frozenset(one for one in both if re.fullmatch(g.AUDIENCE, one))
            if rule.jwks is None or _HTTPS.fullmatch(rule.jwks):
                self.jwks.setdefault(rule.issuer, rule.jwks)

    def narrow(self, audiences: Iterable[str]) -> None:
        """Take note of the audiences that a rule asks for: an issuer's tokens count with one of those only."""
        wanted = frozenset(audiences)
        for issuer, known in self.audiences.items():
            both = known & wanted if known else wanted
            if both:
                self.audiences[issuer] = both

    def at(self, group: Group, audiences: Iterable[str]) -> list[str]:
        """Return the issuers whose tokens are verified at a group and which the policy can name, sorted.

        A rule's ``audiences``, where it has some, hold all that the policy takes of the issuer.
        """
        wanted = frozenset(audiences)
        return sorted(
            {
                rule.issuer
                for rule in self.rules
                if rule.covers(group)
                and self.audiences.get(rule.issuer)
                and (not wanted or self.audiences[rule.issuer] <= wanted)
                and (not rule.audiences or self.audiences[rule.issuer] <= rule.audiences)
            }
        )

    def of(self, match: Match, conditions: Iterable[Condition], issuers: list[str]) -> User | str:
        """Return the user whom request principals and claims ask for, or why the policy cannot say it."""
        if match.not_values:
            return "notRequestPrincipals: a policy names whom it lets in"
        conditions = tuple(conditions)
        if any(one.name in _CLIENTS for one in conditions):
            return "a token of a client and not of a user: what `token` of an operation asks for, written by hand"
        alternatives: list[str] = []
        example: dict[str, Any] = {}
        for pattern in match.values or ("*",):
            issuer, subject = self._principal(pattern)
            for one in issuers if issuer == "*" else [issuer]:
                if (
                    one not in issuers
                    or ("*" in subject and subject != "*")
                    or not _PLAIN.fullmatch(subject.replace("*", "x"))
                ):
                    continue
                parts = [f"user.issuer == '{one}'"] if len(self.audiences) > 1 else []
                parts += [f"user.id == '{subject}'"] if subject != "*" else []
                alternatives.append(" && ".join(parts))
                example = example or {"id": "someone" if subject == "*" else subject, "issuer": one}
                self.used.add(one)
        if not alternatives:
            return "no issuer that is verified there, with audiences, has such principals"
        whens = (
            []
            if "" in alternatives
            else [" || ".join(f"({one})" if len(alternatives) > 1 else one for one in alternatives)]
        )
        for condition in conditions:
            text = self._claim(condition, example)
            if text is None:
                return f"the claim {'.'.join(condition.name)} cannot be named"
            whens.append(text)
        return User(
            when=" && ".join(f"({one})" if len(whens) > 1 else one for one in whens) or None, example=example
        )

    def _principal(self, pattern: str) -> tuple[str, str]:
        if pattern == "*":
            return "*", "*"
        issuer, _, subject = pattern.rpartition("/")
        return issuer, subject

    def _claim(self, condition: Condition, example: dict[str, Any]) -> str | None:
        if not all(re.fullmatch(g.CLAIM_NAME, part) for part in condition.name):
            return None
        if not all(_PLAIN.fullmatch(value) for value in condition.values):
            return None
        name = re.sub(r"[^a-z0-9]+", "_", "_".join(condition.name).lower()).strip("_")
        if not re.fullmatch(g.ATTRIBUTE_NAME, name) or name in g.TEST_USER_KEYS:
            name = f"claim_{name}"[:60]
        is_list = condition.name[-1] in _LISTS
        self.attributes[name] = ("strings" if is_list else "string", ".".join(condition.name))
        values = condition.values
        example[name] = [values[0]] if is_list else values[0]
        if is_list:
            return " || ".join(f"'{value}' in user.{name}" for value in values)
        return " || ".join(f"user.{name} == '{value}'" for value in values)

    def entries(self) -> list[dict[str, Any]]:
        """Return the issuers that rules use, as the policy writes them."""
        entries = []
        for issuer in sorted(self.used):
            entry: dict[str, Any] = {"issuer": issuer, "audience": sorted(self.audiences[issuer])}
            if self.jwks.get(issuer):
                entry["jwks"] = self.jwks[issuer]
            if self.attributes:
                entry["attributes"] = {name: path for name, (_, path) in sorted(self.attributes.items())}
            entries.append(entry)
        return entries
