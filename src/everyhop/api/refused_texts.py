# SPDX-License-Identifier: Apache-2.0
"""What a refused request has shown that may be a credential; every form of it is looked at, and nothing is kept."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

from everyhop.control.shown_credentials import Shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from starlette.requests import Request

    from everyhop.control.shown_credentials import CredentialWatch

MAX_VALUES: Final = 8
MAX_HEADER: Final = 16 * 1024
_BASIC: Final = "basic"
_PARAMETERS: Final = (
    "subject_token",
    "actor_token",
    "client_secret",
    "client_assertion",
    "token",
    "assertion",
    "password",
)


def authorization_texts(values: Iterable[str]) -> Iterator[str]:
    """Yield what may be a credential in ``Authorization`` fields: without the scheme, whole, and of Basic both parts."""
    for value in list(values)[:MAX_VALUES]:
        text = value[:MAX_HEADER].strip()
        scheme, _, rest = text.partition(" ")
        rest = rest.strip()
        yield rest or text
        if not rest:
            continue
        yield text
        if scheme.lower() == _BASIC:
            try:
                user, _, password = base64.b64decode(rest, validate=True).decode().partition(":")
            except (binascii.Error, ValueError):
                continue
            yield from (part for part in (password, user) if part)


def form_texts(form: dict[str, str]) -> Iterator[str]:
    """Yield the parameters of a form that are credentials."""
    yield from (form[name] for name in _PARAMETERS if name in form)


def look(
    watch: CredentialWatch | None,
    request: Request,
    where: str,
    *,
    caller: str | None,
    source: str | None,
    form: dict[str, str] | None = None,
) -> None:
    """Have a watch look at what a refused request to the server's face has shown.  Blocking; never raises."""
    if watch is None:
        return
    texts = [*authorization_texts(request.headers.getlist("authorization")), *form_texts(form or {})]
    if texts:
        watch.refused(texts, Shown(where=where, caller=caller, source=source))
