# SPDX-License-Identifier: Apache-2.0
"""What has to be said where Istio verifies access tokens: what it does not know of them, and where it looks at them too."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from everyhop.targets.istio.rules import OpenDoor, Opened
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View


def token_warnings(view: View, found: Mapping[str, Opened]) -> Iterator[Diagnostic]:
    """Yield warnings of revoked tokens that are good, and of bad tokens that are refused where none is needed."""
    yield from _unrevoked(view, found)
    for name in sorted(found):
        if found[name].audiences:
            yield from _elsewhere(view, name, [one for one in found[name].doors if not one.needs_token])


def _unrevoked(view: View, found: Mapping[str, Opened]) -> Iterator[Diagnostic]:
    """A mesh knows no revocation; where everyhop is asked, it does."""
    if "sdk" in view.beside or "authorizer" in view.beside:
        return
    doors = [
        str(one.door)
        for name in sorted(found)
        for one in found[name].doors
        if one.needs_token and not one.asks
    ]
    if doors:
        where = doors[0] if len(doors) == 1 else f"{doors[0]} and {len(doors) - 1} more"
        message = f"a revoked token is good at {where} until it expires: {view.target} knows no revocation"
        yield view.warning("token-revocation", message, suggestion=f"targets: {view.target}: authorizer")


def _elsewhere(view: View, name: str, doors: Sequence[OpenDoor]) -> Iterator[Diagnostic]:
    """A RequestAuthentication is in force at every door of the pod: one warning for the operations, and one a probe."""
    operations = [one for one in doors if not one.door.is_probe]
    groups = [operations] if operations else []
    for group in (*groups, *([one] for one in doors if one.door.is_probe)):
        where = ", ".join(one.door.name for one in group)
        rules = dict.fromkeys(rule for one in group for grant in one.grants for rule in grant.rules)
        message = (
            f"a call to {name} with a bearer token that is expired, or of another issuer or audience, is refused at "
            f"{where} too, where none is needed"
        )
        yield view.warning("token-elsewhere", message, door=group[0].door, rules=rules)
