# SPDX-License-Identifier: Apache-2.0
"""HTTP rules of a port (``PortRuleHTTP``) as they become matchers of Envoy (pkg/envoy, ``getHTTPRule``).

Method, host and path are regular expressions that have to match as a whole; the path is the whole ``:path``, its query included.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.envoy_paths import EscapedSlashes, canonical
from everyhop.evaluators.regex import FullMatch, program_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.evaluators.fields import Fields

MAX_PROGRAM: Final = 100
"""What Envoy's ``re2.max_program_size.error_level`` is unless told."""
_REPAIRS: Final = ("LOG", "ADD", "DELETE", "REPLACE")
_ESCAPED_SLASH: Final = re.compile(r"%2f|%5c", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Header:
    """A header that has to be there, with a value where one is written.

    Of several values ``headers`` asks for any one (Envoy's matcher; older releases joined them by commas, which is admitted too),
    ``headerMatches`` for all of them joined (``joins``; cilium/proxy, network_policy.cc).
    """

    name: str
    value: str | None = None
    joins: bool = False

    def is_in(self, headers: Mapping[str, tuple[str, ...]]) -> bool:
        """Tell whether it is."""
        found = headers.get(self.name)
        if found is None or self.value is None:
            return found is not None
        return ",".join(found) == self.value or (not self.joins and self.value in found)


@dataclass(frozen=True, slots=True)
class HttpRule:
    """One rule; what is missing does not count."""

    method: FullMatch | None
    host: FullMatch | None
    path: FullMatch | None
    headers: tuple[Header, ...]

    def matches(self, method: str, host: str, path: str, headers: Mapping[str, tuple[str, ...]]) -> bool:
        """Tell whether a request, its path normalised, matches every part."""
        return (
            (self.method is None or self.method(method))
            and (self.host is None or self.host(host))
            and (self.path is None or self.path(path))
            and all(one.is_in(headers) for one in self.headers)
        )


def read_http(fields: Fields, max_program: int | None) -> HttpRule:
    """Read one rule; raises InputError for an expression that Envoy would refuse, as then the endpoint has no policy at all."""
    method, host, path = (_expression(fields, key, max_program) for key in ("method", "host", "path"))
    headers = [_header(one, fields) for one in fields.texts("headers") or ()]
    more = fields.each("headerMatches", _header_match) or ()
    return HttpRule(method, host, path, (*headers, *(one for one in more if one is not None)))


def _expression(fields: Fields, key: str, max_program: int | None) -> FullMatch | None:
    text = fields.text(key)
    if not text:
        return None
    found, size = _compiled(text)
    if max_program is not None and size > max_program:
        raise InputError(
            f"{fields.where}.{key}: the program of {text[:80]!r} has {size} instructions, and Envoy takes {max_program}:"
            " it would refuse the policy of the whole endpoint"
        )
    return found


@lru_cache(maxsize=4096)
def _compiled(text: str) -> tuple[FullMatch, int]:
    return FullMatch(text), program_size(text)


def _header(text: str, fields: Fields) -> Header:
    name, space, value = text.partition(" ")
    if not name.rstrip(":"):
        raise InputError(f"{fields.where}.headers: a header has a name")
    return Header(name.rstrip(":").lower(), value) if space else Header(name.lower())


def _header_match(fields: Fields) -> Header | None:
    name, value = fields.needed_text("name"), fields.text("value")
    if "secret" in fields:
        raise InputError(f"{fields.where}: what a secret holds is not known here")
    # With a repair a mismatch is logged or mended, and the request passes all the same.
    repairs = fields.one_of("mismatch", *_REPAIRS) is not None
    return None if repairs else Header(name.lower(), value or None, joins=True)


def seen_path(path: str, *, normalises: bool) -> str | None:
    """Return the ``:path`` that rules see and the service gets, None where the proxy answers by itself.

    Cilium's proxies normalise (``http-normalize-path``, on unless told), merge slashes, and answer a path with an escaped slash
    with a redirect.
    """
    if normalises and _ESCAPED_SLASH.search(path.partition("?")[0]):
        return None
    return canonical(path, normalizes=normalises, merges=normalises, escaped=EscapedSlashes.KEEP)
