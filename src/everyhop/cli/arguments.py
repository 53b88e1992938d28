# SPDX-License-Identifier: Apache-2.0
"""Arguments that many commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from everyhop.control.local_link import LocalLink
    from everyhop.runtime.layout import StateLayout
    from everyhop.runtime.settings import Settings


def add_state(parser: argparse.ArgumentParser) -> None:
    """Add ``--state DIR``."""
    parser.add_argument(
        "--state",
        metavar="DIR",
        type=Path,
        default=None,
        help="state directory (default: $EVERYHOP_STATE, else ~/.local/state/everyhop)",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add ``-o text|json``."""
    parser.add_argument(
        "-o", "--output", choices=["text", "json"], default="text", help="text (default) or json"
    )


def add_verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    epilog: str | None,
    text: str,
) -> argparse.ArgumentParser:
    """Declare one verb of a noun, with ``--state`` and ``-o``."""
    parser = verbs.add_parser(
        name, help=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_state(parser)
    add_output(parser)
    parser.set_defaults(run=run)
    return parser


def add_policy_and_targets(parser: argparse.ArgumentParser) -> None:
    """Add the policy, ``--target`` and ``--with``."""
    parser.add_argument("policy", metavar="FILE|DIR", type=Path, nargs="?", help="default: ./everyhop.yaml")
    parser.add_argument(
        "--target",
        metavar="T[,T]",
        type=names,
        required=True,
        help="the targets, which stand on the same hops (see everyhop policy targets)",
    )
    parser.add_argument(
        "--with",
        dest="beside",
        metavar="T[,T]",
        type=names,
        default=(),
        help="what else stands on these hops: sdk, authorizer, targets",
    )


def names(text: str) -> tuple[str, ...]:
    """Return the names of a list with commas, each once."""
    found = tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))
    if not found:
        raise argparse.ArgumentTypeError("a name, or several with commas between them")
    return found


def add_policy(parser: argparse.ArgumentParser, *, what: str) -> None:
    """Add ``--policy FILE|DIR``."""
    parser.add_argument("--policy", metavar="FILE|DIR", type=Path, default=None, help=what)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add ``--settings FILE``."""
    parser.add_argument(
        "--settings",
        metavar="FILE",
        type=Path,
        default=None,
        help="settings in TOML (default: DIR/everyhop.toml)",
    )


def settings_of(args: argparse.Namespace) -> Settings:
    """Read the settings that the arguments name.

    Raises SettingsError for a file that was named and is not there, and for what it says wrongly.
    """
    from everyhop.core.errors import SettingsError
    from everyhop.runtime.settings import load_settings

    if args.settings is not None and not args.settings.is_file():
        raise SettingsError(f"no settings file {args.settings}")
    return load_settings(args.settings or layout_of(args).settings_file)


def layout_of(args: argparse.Namespace) -> StateLayout:
    """Return the layout of the state directory that the arguments name."""
    from everyhop.runtime.layout import StateLayout, default_state

    return StateLayout((args.state or default_state()).expanduser().absolute())


def admin(args: argparse.Namespace, *, timeout: float = 10.0) -> LocalLink:
    """Return a link to the server of that state directory."""
    from everyhop.control.local_link import LocalLink

    return LocalLink(layout_of(args).admin_socket, timeout=timeout)


def agent(args: argparse.Namespace, *, timeout: float = 15.0) -> LocalLink:
    """Return a link to the agent of that state directory."""
    from everyhop.control.local_link import LocalLink

    return LocalLink(layout_of(args).agent_socket, timeout=timeout)
