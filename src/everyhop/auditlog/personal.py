# SPDX-License-Identifier: Apache-2.0
"""Where records name persons, and pseudonyms in their place.

A pseudonym is ``~KIND.`` and 26 characters of base 32.  Persons are named by: the user of a call, also inside the facts
that a condition saw and inside a question over AuthZEN; the subject of a token; whoever is blocked or found; and by the
address of an outside client, of IPv6 its /64, which is how addresses are counted.  Services, API keys and the uids of
operators name no customer and stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from everyhop.auditlog.addresses import canonical_address
from everyhop.auditlog.budget import fit
from everyhop.auditlog.model import MAX_TEXT, Kind, Point, Record, Scalar
from everyhop.core.errors import InputError

PSEUDONYM: Final = re.compile(r"~(?:user|address)\.[a-z2-7]{26}", re.ASCII)
MAX_VALUE: Final = 512

_ASKED: Final = "asked"
_HANDSHAKE: Final = "untrusted-client"
_SUBJECTS: Final = ("subject", "sub", "block")
_PREFIXED: Final = re.compile(r"(user|identity|address):(.+)", re.DOTALL)
_NO_PERSON: Final = ("spiffe://", "apikey:")
_NAMES_A_PERSON: Final = re.compile(
    r"(?<![a-z_.])((?:user\.(?:id|sub|subject|email|name|phone)|[a-z_.]{0,64}(?:owner|author|assignee|email|user_id)[a-z_]{0,32}) = ')"
    r"([^'\\]{1,512})(?=')",
    re.ASCII,
)
_PERSONAL_PROPERTIES: Final = frozenset({"id", "sub", "email", "name", "phone", "preferred_username"})

_SENTENCES: Final = ("title", "suggestion", "why")
_ADDRESS: Final = re.compile(
    r"(?<![\w.:])(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?:/64)?)(?![\w:])",
    re.ASCII,
)
_META: Final = "meta."
_META_PERSONAL: Final = _PERSONAL_PROPERTIES - {"id"} | {"user", "user_id", "username", "subject", "account"}
_PERSONS: Final = frozenset({"user", "account", "person", "customer", "member", "profile"})

NameOf = Callable[["PersonKind", str], str | None]
"""Gives the pseudonym of a value, or None to leave it."""


class PersonKind(StrEnum):
    """What a pseudonym stands for."""

    USER = "user"
    ADDRESS = "address"


Wish = tuple[PersonKind, str]


def is_pseudonym(text: str) -> bool:
    """Tell whether a text has the form of a pseudonym; whether it is one, only the server knows."""
    return PSEUDONYM.fullmatch(text) is not None


def parse_person(text: str) -> Wish:
    """Read ``user:NAME`` or ``address:ADDRESS``.  Raises InputError."""
    kind, separator, value = text.partition(":")
    if not separator or kind not in set(PersonKind) or not 0 < len(value) <= MAX_VALUE:
        raise InputError(f"not a person: {text[:80]!r}", hint="user:NAME or address:ADDRESS")
    if kind == PersonKind.ADDRESS:
        found = canonical_address(value)
        if found is None:
            raise InputError(f"not an address: {value[:80]!r}")
        return PersonKind.ADDRESS, found
    return PersonKind.USER, value


def persons_in(record: Record) -> set[Wish]:
    """Return everybody whom a record names, in the form that pseudonyms are asked for in."""
    found: set[Wish] = set()

    def note(kind: PersonKind, value: str) -> None:
        found.add((kind, value))

    disguise(record, note)
    return found


def disguise(record: Record, name_of: NameOf) -> Record:
    """Return the record with pseudonyms for persons; the same object where it names none.  Stays within its bounds."""
    changed: dict[str, Any] = {}
    if record.caller is not None and (caller := _prefixed(record.caller, name_of)) is not None:
        changed["caller"] = caller
    if record.detail:
        detail = _detail(record, name_of)
        if detail:
            changed["detail"] = {k: v for k, v in (record.detail | detail).items() if v is not None}
    return fit(msgspec.structs.replace(record, **changed)) if changed else record


def reveal(record: Record, values: Mapping[str, str]) -> Record:
    """Return the record with the ``values`` of pseudonyms; one without a value stays as it is."""
    if not values:
        return record
    changed: dict[str, Any] = {}
    if record.caller is not None and "~" in record.caller:
        changed["caller"] = reveal_text(record.caller, values)
    detail: dict[str, Scalar] = {}
    for name, value in record.detail.items():
        if isinstance(value, str) and "~" in value:
            detail[name] = _reveal_json(value, values) if name == _ASKED else reveal_text(value, values)
    if detail:
        changed["detail"] = record.detail | detail
    return msgspec.structs.replace(record, **changed) if changed else record


def reveal_text(text: str, values: Mapping[str, str]) -> str:
    """Return a text with the values of the pseudonyms in it."""
    return PSEUDONYM.sub(lambda match: values.get(match[0], match[0]), text)


def pseudonyms_in(record: Record) -> set[str]:
    """Return the pseudonyms of a record, known or not."""
    texts = [record.caller or "", *(value for value in record.detail.values() if isinstance(value, str))]
    return {found for text in texts if "~" in text for found in PSEUDONYM.findall(text)}


def _detail(record: Record, name_of: NameOf) -> dict[str, Scalar]:
    """Return the details that change."""
    detail = record.detail
    changed: dict[str, Scalar] = {}
    user = detail.get("user")
    if isinstance(user, str) and user and not user.startswith(_NO_PERSON):
        changed["user"] = name_of(PersonKind.USER, user[:MAX_VALUE])
    if isinstance(facts := detail.get("facts"), str):
        changed["facts"] = _facts(facts, name_of)
    for name, is_address in (
        ("host", _shows_client(record)),
        ("source", record.kind is Kind.TOKEN),
        ("address", record.kind is Kind.LOG),  # what a reader of the log has looked for
    ):
        value = detail.get(name)
        if is_address and isinstance(value, str) and (address := canonical_address(value)) is not None:
            changed[name] = name_of(PersonKind.ADDRESS, address)
    for name in _SUBJECTS:
        value = detail.get(name)
        if isinstance(value, str) and value:
            changed[name] = _subject(record, value, name_of)
    if record.kind is Kind.APPLICATION:
        changed |= _application(detail, name_of)
    if isinstance(asked := detail.get(_ASKED), str):
        changed |= _asked(asked, name_of)
    if record.kind in {Kind.FINDING, Kind.RESPONSE}:
        changed |= _prose(record, name_of)
    return {name: value for name, value in changed.items() if value is not None or name == _ASKED}


def _prose(record: Record, name_of: NameOf) -> dict[str, Scalar]:
    """Return sentences about a finding or a block, with pseudonyms for whom they are about and for addresses."""
    persons = {
        match[2]
        for text in (record.caller, *(record.detail.get(name) for name in _SUBJECTS))
        if isinstance(text, str) and (match := _PREFIXED.fullmatch(text)) is not None
        if match[1] != "address" and not match[2].startswith(_NO_PERSON)
    }
    user = record.detail.get("user")
    if isinstance(user, str) and user and not user.startswith(_NO_PERSON):
        persons.add(user)

    def address(match: re.Match[str]) -> str:
        found = canonical_address(match[0])
        return (found and name_of(PersonKind.ADDRESS, found)) or match[0]

    changed: dict[str, Scalar] = {}
    for name in _SENTENCES:
        text = record.detail.get(name)
        if not isinstance(text, str):
            continue
        told = _ADDRESS.sub(address, text)
        for person in persons:
            as_named = name_of(PersonKind.USER, person[:MAX_VALUE])
            if as_named is not None:
                told = re.sub(rf"(?<![\w@.~-]){re.escape(person)}(?![\w@-])", as_named, told)
        if told != text:
            changed[name] = told
    return changed


def _application(detail: Mapping[str, Scalar], name_of: NameOf) -> dict[str, Scalar]:
    """Return what an application says of persons: metadata so named, and a resource that is one."""
    names = [
        name
        for name in detail
        if name.startswith(_META) and name.removeprefix(_META).lower() in _META_PERSONAL
    ]
    if str(detail.get("resource_type")).lower() in _PERSONS:
        names.append("resource_id")
    found: dict[str, Scalar] = {}
    for name in names:
        value = detail.get(name)
        if isinstance(value, str) and value and not value.startswith(_NO_PERSON):
            found[name] = name_of(PersonKind.USER, value[:MAX_VALUE])
    return found


def _shows_client(record: Record) -> bool:
    """Tell whether ``detail.host`` is the address of whoever called."""
    return record.point is Point.EDGE or (record.point is Point.INGRESS and record.reason == _HANDSHAKE)


def _subject(record: Record, value: str, name_of: NameOf) -> str | None:
    if value.startswith(_NO_PERSON):
        return None
    prefixed = _prefixed(value, name_of)
    if prefixed is not None or record.kind is not Kind.TOKEN:
        return prefixed
    return name_of(PersonKind.USER, value[:MAX_VALUE])


def _prefixed(text: str, name_of: NameOf) -> str | None:
    """Return ``user:PSEUDONYM`` for ``user:NAME``, and likewise for an address; None for anything else."""
    match = _PREFIXED.fullmatch(text)
    if match is None or match[2].startswith(_NO_PERSON):
        return None
    if match[1] == "address":
        address = canonical_address(match[2])
        found = None if address is None else name_of(PersonKind.ADDRESS, address)
    else:
        found = name_of(PersonKind.USER, match[2][:MAX_VALUE])
    return None if found is None else f"{match[1]}:{found}"


def _facts(facts: str, name_of: NameOf) -> str | None:
    def put(match: re.Match[str]) -> str:
        return match[1] + (name_of(PersonKind.USER, match[2]) or match[2])

    replaced = _NAMES_A_PERSON.sub(put, facts)
    return None if replaced == facts else replaced


def _asked(asked: str, name_of: NameOf) -> dict[str, Scalar]:
    """Return the question with a pseudonym for its subject; without the question where it grows too long by that."""
    try:
        kept = msgspec.json.decode(asked)
        subject = kept["subject"]
        if subject["type"] == "service" or not isinstance(subject["id"], str):
            return {}
        own = subject["properties"]
        places = [(subject, "id"), *((own, name) for name in own if name in _PERSONAL_PROPERTIES)]
    except (msgspec.MsgspecError, KeyError, TypeError):
        return {}
    is_changed = False
    for holder, name in places:
        value = holder[name]
        found = name_of(PersonKind.USER, value[:MAX_VALUE]) if isinstance(value, str) and value else None
        if found is not None:
            holder[name], is_changed = found, True
    if not is_changed:
        return {}
    text = msgspec.json.encode(kept).decode()
    return {_ASKED: text if len(text) <= MAX_TEXT else None}


def _reveal_json(text: str, values: Mapping[str, str]) -> str:
    """Reveal inside the strings of a JSON text, so that no value can end one."""
    return PSEUDONYM.sub(
        lambda match: (
            msgspec.json.encode(values[match[0]]).decode()[1:-1] if match[0] in values else match[0]
        ),
        text,
    )
