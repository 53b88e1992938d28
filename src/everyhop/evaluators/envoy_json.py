# SPDX-License-Identifier: Apache-2.0
"""Envoy's configuration as JSON: protobuf's names may be written ``like_this`` or ``likeThis``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping


def snake(name: str) -> str:
    """Return a member's name as protobuf files write it."""
    return re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name)


def member(value: Any, name: str, default: Any = None) -> Any:
    """Return a member by its name with underscores, however it is written; raises InputError where there is no mapping."""
    if not isinstance(value, dict):
        raise InputError(f"expected a mapping with {name!r}")
    for key, held in value.items():
        if snake(key) == name:
            return default if held is None else held
    return default


def only(value: Any, *names: str) -> None:
    """Refuse any other member, and one that is written in both spellings."""
    if not isinstance(value, dict):
        raise InputError(f"expected a mapping with {', '.join(names)}")
    seen: set[str] = set()
    for key in value:
        name = key if key.startswith("@") else snake(key)
        if name not in names or name in seen:
            raise InputError(f"{key!r} is not known here, or stands twice")
        seen.add(name)


def type_name(value: Mapping[str, Any]) -> str:
    """Return the message's name of a typed config, "" without one."""
    return str(value.get("@type", "")).rpartition("/")[2]
