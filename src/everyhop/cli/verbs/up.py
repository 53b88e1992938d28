# SPDX-License-Identifier: Apache-2.0
"""``everyhop up``: the whole trust domain in the foreground."""

from __future__ import annotations

import argparse
from pathlib import Path

from everyhop.cli.arguments import add_policy, add_settings, add_state, layout_of, settings_of
from everyhop.cli.output import say

_EPILOG = """\
examples:
  everyhop up                                    uses ./everyhop.yaml
  everyhop up --policy policy/ --state ./state   a directory of policy files
  everyhop up --ready-file /run/user/1000/ready  a file that exists while it serves

It prints one line that starts with "ready" and then stays; SIGTERM or Ctrl-C ends it.  Editing the policy
is noticed at once; a policy with mistakes is refused loudly and changes nothing.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "up",
        help="start the whole trust domain: server and agent",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_policy(parser, what="policy file or directory (default: ./everyhop.yaml)")
    add_state(parser)
    add_settings(parser)
    parser.add_argument(
        "--ready-file", metavar="F", type=Path, help="write status as JSON here once it serves"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from everyhop.control.policy_in_force import check_candidate
    from everyhop.runtime.policy_files import PolicyFiles, PureRules
    from everyhop.runtime.up import Supervisor

    layout = layout_of(args)
    policy = (args.policy or Path("everyhop.yaml")).absolute()
    settings = settings_of(args)
    layout.check()
    if not settings.database and not layout.database.exists():
        # A first start has no older snapshot to fall back to: show the mistakes here and now.
        check_candidate(PureRules(), PolicyFiles(policy).read(), trust_domain=None)
    layout.create()
    Supervisor(layout, policy, _say, settings=args.settings).run(args.ready_file)
    return 0


def _say(text: str) -> None:
    """Print the ready line on standard output, everything else on standard error."""
    if text.startswith("ready "):
        print(text, flush=True)
    else:
        say(text)
