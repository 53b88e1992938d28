# SPDX-License-Identifier: Apache-2.0
"""DNS names in Cilium's rules: exact ones and patterns (pkg/fqdn/matchpattern)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from everyhop.evaluators.fields import Fields

_NAME: Final = re.compile(r"[-a-zA-Z0-9_.]+")
_PATTERN: Final = re.compile(r"[-a-zA-Z0-9_.*]+")
_SERVER_NAME: Final = re.compile(r"(?:\*?\*\.)?(?:[-a-zA-Z0-9_]+\.?)+")


@dataclass(frozen=True, slots=True)
class Names:
    """Names that fit a ``matchName`` or ``matchPattern``."""

    written: str
    pattern: re.Pattern[str]

    def __contains__(self, name: str) -> bool:
        """Tell whether a name fits; neither case nor a dot at the end makes a difference."""
        return self.pattern.fullmatch(name.lower().rstrip(".")) is not None


def read_server_name(text: str, where: str) -> Names:
    """Read a name in TLS (``serverNames``): ``*.`` stands for one label, ``**.`` for one or more."""
    if not _SERVER_NAME.fullmatch(text):
        raise InputError(f"{where}: {text[:60]!r} is no server name")
    stars = len(text) - len(text.lstrip("*"))
    label = r"[-a-zA-Z0-9_]+\."
    lead = ("", label, f"(?:{label})+")[stars]
    rest = text[stars + 1 :] if stars else text
    return Names(text, re.compile(lead + re.escape(rest.lower().rstrip("."))))


def read_names(fields: Fields) -> Names:
    """Read one entry of ``toFQDNs`` or of ``rules.dns``."""
    name, pattern = fields.text("matchName"), fields.text("matchPattern")
    if (name is None) == (pattern is None):
        raise InputError(f"{fields.where}: one of matchName and matchPattern has to be there")
    if name is not None:
        if not _NAME.fullmatch(name):
            raise InputError(f"{fields.where}: {name[:60]!r} is no name")
        return Names(name, re.compile(re.escape(name.lower().rstrip("."))))
    written = pattern or ""
    if not _PATTERN.fullmatch(written) or "**" in written:
        raise InputError(f"{fields.where}: the pattern {written[:60]!r} is not read here")
    if written == "*":
        return Names(written, re.compile(".*"))
    parts = written.lower().rstrip(".").split("*")
    return Names(written, re.compile("[-a-zA-Z0-9_]*".join(map(re.escape, parts))))
