# SPDX-License-Identifier: Apache-2.0
"""What an application may say of an action beside who and what: a few bounded scalars, never a secret.

The SDK applies these rules before anything waits or leaves the process, and the agent again, because it believes none.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from everyhop.auditlog.model import clip
from everyhop.auditlog.redaction import mark, redact_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.auditlog.model import Scalar

MAX_METADATA: Final = 16
MAX_METADATA_TEXT: Final = 256
OUTCOMES: Final = frozenset({"success", "failure", "denied", "attempt"})
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,47}", re.ASCII)
_SECRET_NAME: Final = re.compile(
    r"(?i)pass(word|wd|phrase)|pwd|secret|token|authori[sz]ation|cookie|credential|(api|access|private)[_.-]?key|(?<![A-Za-z])(otp|pin)(?![A-Za-z])|cvv|cvc"
)
_MARK: Final = re.compile(r"\[redacted:[a-z-]{1,20}:[0-9]{1,9}\]", re.ASCII)
_LARGEST: Final = 2**53


def bounded_metadata(given: Mapping[str, object]) -> tuple[dict[str, Scalar], int]:
    """Return what may stay, and how many entries may not.

    At most 16 entries with plain names of at most 48 characters stay; texts are cut to 256, numbers are finite and
    within 2**53.  The value of a name that says secret (``password``, ``api_key``, …) is replaced, and so is what looks
    like a credential in any text.
    """
    found: dict[str, Scalar] = {}
    left_out = 0
    for name, value in given.items():
        if len(found) == MAX_METADATA or not _NAME.fullmatch(name):
            left_out += 1
        elif isinstance(value, str):
            is_secret = value and not _MARK.fullmatch(value) and _SECRET_NAME.search(name)
            found[name] = mark("value", value) if is_secret else plain(value, MAX_METADATA_TEXT)
        elif isinstance(value, bool) or (
            isinstance(value, int | float) and math.isfinite(value) and abs(value) <= _LARGEST
        ):
            found[name] = value if _SECRET_NAME.search(name) is None else mark("value", str(value))
        else:
            left_out += 1
    return found, left_out


def plain(text: str, limit: int) -> str:
    """Return a text without credentials, cut to ``limit``, with a sign in place of what is not printable."""
    # Cut generously first, so that the work has a bound; a credential at the very end is cut with the text.
    text = redact_text(text[: 8 * limit])
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in clip(text, limit))
