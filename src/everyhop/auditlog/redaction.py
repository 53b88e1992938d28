# SPDX-License-Identifier: Apache-2.0
"""Credentials out of records, before anything is hashed or signed: what is sealed can never be taken back.

A mark ``[redacted:KIND:LENGTH]`` stands in place of a secret.  Redacting twice changes nothing, and the time grows with
the text alone: every pattern is a run of characters behind a fixed beginning, with possessive repetitions that never try
again.  What is recognised by its looks only (a long random piece of a path) is looked for in paths and nowhere else,
since ids of tokens, traces and policies look like that too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Final

import msgspec

from everyhop.auditlog.model import Record, Scalar

_B64: Final = r"A-Za-z0-9._~+/=-"
_NAMES: Final = (
    r"pass(?:word|wd|phrase)?|pwd|client[_-]?secret|secret|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|(?:access|refresh|id|auth|csrf|session)?[_-]?token|authorization|assertion|signature|sig|credentials?|session(?:id)?"
)
_TRIGGERS: Final = (  # in lower case; a text with none of them is left at once
    *("eyj", "bearer", "basic", "dpop", "eh_", "-----begin", "cookie", "@", "akia", "asia", "gh", "xox"),
    *("pass", "pwd", "secret", "key", "token", "authorization", "assertion", "credential", "sig", "session"),
)
_SECRET_NAME: Final = re.compile(
    r"(?i)pass(?:word|wd|phrase)|pwd|secret|client[_-]secret|(?:access|refresh|id)[_-]token"
    r"|(?:proxy-)?authorization|(?:set-)?cookie|private[_-]key"
)

_JWT: Final = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{6,}+(?:\.[A-Za-z0-9_-]*+){1,4}+")
_PEM: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]{1,40}+-----(?:(?!-----END ).)*+(?:-----END [A-Z0-9 ]{1,40}+-----)?+", re.DOTALL
)
_API_KEY: Final = re.compile(
    r"eh_[a-z0-9]{1,16}_[a-z0-9]{1,16}_[0-9A-Za-z]{8}_[0-9A-Za-z]{16,}+(?:_[0-9A-Za-z]++)?+"
)
_SCHEME: Final = re.compile(
    rf"(?i)(?<!redacted:)\b(bearer|basic|dpop)((?:\s|%20|\+|:)++)(?!(?:bearer|basic|dpop)\b)([{_B64}]{{6,}}+)"
)
_COOKIE: Final = re.compile(r"(?i)(?<!redacted:)\b((?:set-)?cookie\s{0,3}+[:=]\s{0,3}+)(?!\[)(\S[^\n]*+)")
_NAMED: Final = re.compile(
    rf"(?i)(?<![A-Za-z0-9])((?:{_NAMES})(?:=|%3d|[\"']\s{{0,3}}+[:=]\s{{0,3}}+(?=[\"'])))"
    r"([\"']?)(?!\[)([^\s&;,\"'<>\[\]]++)"
)
_USERINFO: Final = re.compile(r"(://)([^/\s:@\[\]]{0,256}+:[^/\s@\[\]]{1,256}+)(?=@)")
_KNOWN: Final = re.compile(
    r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[opsur]_[A-Za-z0-9]{20,}+|github_pat_[A-Za-z0-9_]{20,}+|xox[abeprs]-[A-Za-z0-9-]{10,}+)"
)
_PIECE: Final = re.compile(r"[A-Za-z0-9_=+~-]{24,}+")
_HARMLESS: Final = re.compile(
    r"[0-9a-f]{1,64}|[0-9A-F]{1,64}|[0-9]+|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
)
_PARTS: Final = re.compile(r"[-_=+~]")
_MAX_ROUNDS: Final = 8
_MIN_PIECE: Final = 24
_MIN_CHANGES_MIXED: Final = 0.35
_MIN_CHANGES_ONE_CASE: Final = 0.22
_MIN_DISTINCT: Final = 0.75
_LONGEST_WORD: Final = 20


def redact_text(text: str, *, is_path: bool = False) -> str:
    """Return ``text`` with what looks like a credential replaced; the same object when nothing does."""
    if may_hold_secret(text):
        text = _redacted(text)
    return without_random_pieces(text) if is_path else text


def without_random_pieces(path: str) -> str:
    """Return a path with its long random pieces replaced."""
    return _PIECE.sub(_random_piece, path) if len(path) >= _MIN_PIECE else path


def may_hold_secret(text: str) -> bool:
    """Tell whether a text, or several of them joined, has to be looked at: most have nothing that a secret begins with."""
    lowered = text.lower()
    for trigger in _TRIGGERS:  # noqa: SIM110  # half the price of one expression, and of a generator
        if trigger in lowered:
            return True
    return False


def redact(record: Record) -> Record:
    """Return the record without credentials, and without a query in its path; the same object when there are none."""
    changed: dict[str, object] = {}
    for name in ("caller", "target", "operation", "rule", "reason", "instance"):
        text = getattr(record, name)
        if text is not None and (clean := redact_text(text)) is not text:
            changed[name] = clean
    if record.path is not None:
        path = redact_text(record.path.partition("?")[0], is_path=True)
        if path != record.path:
            changed["path"] = path
    detail = _redact_detail(record.detail)
    if detail is not None:
        changed["detail"] = detail
    return msgspec.structs.replace(record, **changed) if changed else record


def _redact_detail(detail: dict[str, Scalar]) -> dict[str, Scalar] | None:
    found: dict[str, Scalar] | None = None
    for name, value in detail.items():
        clean_name = redact_text(name)
        clean = _clean_value(name, value) if isinstance(value, str) else value
        if clean is not value or clean_name is not name:
            if found is None:
                found = dict(detail)
            found.pop(name)
            found[clean_name] = clean
    return found


def _clean_value(name: str, value: str) -> str:
    if value and _SECRET_NAME.fullmatch(name) and not value.startswith("[redacted:"):
        return mark("value", value)
    return redact_text(value)


def mark(kind: str, secret: str) -> str:
    """Return what stands in place of a secret."""
    return f"[redacted:{kind}:{len(secret)}]"


def _redacted(text: str) -> str:
    for _ in range(
        _MAX_ROUNDS
    ):  # one secret may stand so close to another that it is seen only when that one is gone
        before = text
        for pattern, replace in _RULES:
            text = pattern.sub(replace, text)
        if text == before:
            break
    return text


def _whole(kind: str) -> Callable[[re.Match[str]], str]:
    return lambda match: mark(kind, match[0])


def _scheme(match: re.Match[str]) -> str:
    """Redact a value that is one: a digit, a sign or length tells it from a word in a sentence."""
    value = match[3]
    stem = value.rstrip(".").replace("-", "").replace("_", "")
    is_word = stem.isalpha() and (stem.islower() or stem.istitle()) and len(stem) < _LONGEST_WORD
    return match[0] if is_word else f"{match[1]}{match[2]}{mark(match[1].lower(), value)}"


def _named(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2]}{mark('value', match[3])}"


def _random_piece(match: re.Match[str]) -> str:
    text = match[0]
    return mark("token", text) if not _HARMLESS.fullmatch(text) and _is_random(text) else text


def _is_random(text: str) -> bool:
    """Tell whether a piece looks drawn at random: kinds of characters change often, and few of them come twice.

    Words, also run together (``GetOrderItems``), numbers, hashes in hexadecimal and UUIDs do not look so.
    """
    classes = [_class(c) for c in text]
    present = set(classes) - {"-"}
    if "0" not in present or len(present) == 1:
        return False
    is_mixed = len(present) > 2  # noqa: PLR2004  # upper and lower case, and digits
    if not is_mixed:  # dashes stand between words then
        text = max(_PARTS.split(text), key=len)
        classes = [_class(c) for c in text]
        if len(text) < _MIN_PIECE or _HARMLESS.fullmatch(text):
            return False
    size = 64 if is_mixed else 36
    expected = size * (1 - (1 - 1 / size) ** len(text))
    if len(set(text)) < _MIN_DISTINCT * expected:
        return False
    pairs = [(a, b) for a, b in itertools.pairwise(classes) if "-" not in {a, b}]
    changes = sum(a != b for a, b in pairs)
    return changes >= (_MIN_CHANGES_MIXED if is_mixed else _MIN_CHANGES_ONE_CASE) * len(pairs)


def _class(character: str) -> str:
    if character.isdigit():
        return "0"
    if character.isalpha():
        return "A" if character.isupper() else "a"
    return "-"


_RULES: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]] = (
    (_PEM, _whole("pem")),
    (_JWT, _whole("jwt")),
    (_API_KEY, _whole("api-key")),
    (_KNOWN, _whole("key")),
    (_COOKIE, lambda match: f"{match[1]}{mark('cookie', match[2])}"),
    (_SCHEME, _scheme),
    (_NAMED, _named),
    (_USERINFO, lambda match: f"{match[1]}{mark('userinfo', match[2])}"),
)
