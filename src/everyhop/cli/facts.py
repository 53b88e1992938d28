# SPDX-License-Identifier: Apache-2.0
"""Facts of a call as arguments of a command."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from everyhop.policy.stated import Stated


def add_facts(parser: argparse.ArgumentParser) -> None:
    """Add what may be stated of a call."""
    facts = parser.add_argument_group(
        "facts of the call (none: callers and operations alone are asked about)"
    )
    facts.add_argument("--user", metavar="ID", help="for whom the call is made")
    facts.add_argument(
        "--issuer", metavar="URL", help="whose user that is, where the policy has several issuers"
    )
    facts.add_argument(
        "--role", metavar="R", action="append", help="a role or group of the user (repeatable)"
    )
    facts.add_argument(
        "--mfa", action=argparse.BooleanOptionalAction, help="the user signed in with several factors, or not"
    )
    facts.add_argument("--amr", metavar="M", action="append", help="a method of the sign-in (repeatable)")
    facts.add_argument("--acr", metavar="C", help="the class of the sign-in")
    facts.add_argument(
        "--attr",
        metavar="KIND.NAME=VALUE",
        action="append",
        help="an attribute that the policy declares, e.g. user.department=sales, device.managed=true",
    )
    facts.add_argument("--header", metavar="NAME=VALUE", action="append", help="a header (repeatable)")
    facts.add_argument("--source-ip", metavar="ADDRESS", help="where the call comes from")
    facts.add_argument("--resource", metavar="TYPE/ID", help="what the call is about")
    facts.add_argument("--at", metavar="TIME", help="RFC 3339; now without it")


def stated_by(args: argparse.Namespace) -> Stated:
    """Return what the arguments state."""
    from everyhop.policy.stated import Stated

    return Stated(
        user=args.user,
        issuer=args.issuer,
        roles=tuple(args.role or ()),
        mfa=args.mfa,
        amr=tuple(args.amr or ()),
        acr=args.acr,
        attributes=tuple(args.attr or ()),
        headers=tuple(args.header or ()),
        source_ip=args.source_ip,
        resource=args.resource,
        at=args.at,
    )
