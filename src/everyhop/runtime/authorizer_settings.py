# SPDX-License-Identifier: Apache-2.0
"""``authorizers`` of the settings: which user's proxy may ask for decisions, and about which services."""

from __future__ import annotations

import difflib
import pwd
from typing import Any, Final

from everyhop.control.asking import AskingProxy, CallerFrom
from everyhop.core.errors import SettingsError

_KEYS: Final = ("user", "uid", "service", "services", "caller")
_HIGHEST_UID: Final = 2**32 - 2


def parse_authorizers(entries: list[Any]) -> tuple[AskingProxy, ...]:
    """Return the entries; raises SettingsError for unknown keys, unknown users or one user twice."""
    found: dict[int, AskingProxy] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            raise SettingsError("each entry is a table such as {user = 'www-data', service = 'orders'}")
        proxy = _parse(entry)
        if proxy.uid in found:
            raise SettingsError(f"uid {proxy.uid} has two entries", hint="name all its services in one")
        found[proxy.uid] = proxy
    return tuple(found.values())


def _parse(entry: dict[str, Any]) -> AskingProxy:
    for key in entry:
        if key not in _KEYS:
            close = difflib.get_close_matches(key, _KEYS, n=1)
            raise SettingsError(
                f"unknown key {key!r}", hint=f"did you mean {close[0]!r}?" if close else ", ".join(_KEYS)
            )
    caller = entry.get("caller", CallerFrom.PRINCIPAL.value)
    if caller not in tuple(CallerFrom):
        raise SettingsError(f"caller is {' or '.join(CallerFrom)}")
    return AskingProxy(uid=_uid(entry), services=_services(entry), caller=CallerFrom(caller))


def _uid(entry: dict[str, Any]) -> int:
    if ("user" in entry) == ("uid" in entry):
        raise SettingsError("an entry names either user or uid")
    if "uid" in entry:
        uid = entry["uid"]
        if type(uid) is not int or not 0 <= uid <= _HIGHEST_UID:
            raise SettingsError("uid is the number of a user")
        return uid
    try:
        return pwd.getpwnam(entry["user"]).pw_uid
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"there is no user {entry['user']!r} here", hint="name a uid instead") from error


def _services(entry: dict[str, Any]) -> tuple[str, ...]:
    if ("service" in entry) == ("services" in entry):
        raise SettingsError("an entry names either service or services")
    named = [entry["service"]] if "service" in entry else entry["services"]
    if not isinstance(named, list) or not named or not all(isinstance(n, str) and n for n in named):
        raise SettingsError("service is a name, services a list of names")
    return tuple(dict.fromkeys(named))
