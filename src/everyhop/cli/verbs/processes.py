# SPDX-License-Identifier: Apache-2.0
"""``everyhop server`` and ``everyhop agent``: the two processes that ``up`` starts, for your own supervisor."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from everyhop.cli.arguments import add_policy, add_settings, add_state, layout_of, settings_of


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare both commands."""
    server = commands.add_parser("server", help="the control plane alone (up starts it for you)")
    add_policy(server, what="policy file or directory (default: ./everyhop.yaml)")
    add_state(server)
    add_settings(server)
    server.set_defaults(run=_run_server)
    agent = commands.add_parser("agent", help="the node's agent alone (up starts it for you)")
    add_state(agent)
    add_settings(agent)
    agent.set_defaults(run=_run_agent)


def _run_server(args: argparse.Namespace) -> int:
    import asyncio

    from everyhop.runtime.logs import configure_logging
    from everyhop.runtime.prctl import forbid_tracing
    from everyhop.runtime.server_process import run_server

    forbid_tracing()
    os.umask(0o077)
    layout = layout_of(args)
    settings = settings_of(args)
    configure_logging(settings.log_level)
    layout.create()
    asyncio.run(run_server(layout, settings, args.policy or Path("everyhop.yaml")))
    return 0


def _run_agent(args: argparse.Namespace) -> int:
    import asyncio

    from everyhop.runtime.agent_process import run_agent
    from everyhop.runtime.logs import configure_logging
    from everyhop.runtime.prctl import forbid_tracing

    forbid_tracing()
    os.umask(0o077)
    layout = layout_of(args)
    settings = settings_of(args)
    configure_logging(settings.log_level)
    layout.create()
    asyncio.run(run_agent(layout, settings))
    return 0
