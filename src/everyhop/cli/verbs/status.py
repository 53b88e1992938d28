# SPDX-License-Identifier: Apache-2.0
"""``everyhop status``."""

from __future__ import annotations

import argparse
from typing import Any

from everyhop.cli.arguments import add_output, add_state, admin
from everyhop.cli.output import paint, print_json, printable, table, wants_json


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("status", help="what is in force and what runs")
    add_state(parser)
    add_output(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    status = admin(args).get("/v1/status")
    if wants_json(args):
        print_json(status)
    else:
        print(_render(status))
    return 0


def _render(status: dict[str, Any]) -> str:
    lines = [f"trust domain  {status['trust_domain']}", f"policy        {status['snapshot'][:16]} in force"]
    if rejected := status.get("rejected_policy"):
        lines.append(paint(f"              a newer text from {rejected['at']} was refused:", "red"))
        lines += [
            paint(f"                {p['file']}:{p['line']}:{p['column']}: {p['message']}", "red")
            for p in rejected["problems"][:5]
        ]
    if pending := status.get("pending_policy"):
        lines.append(
            paint(
                f"              {pending['snapshot'][:16]} of {pending['proposer']} waits for approval:",
                "yellow",
            )
        )
        lines.append(paint(f"                {printable(pending['summary'])}", "yellow"))
        lines.append("                everyhop policy pending")
    for agent in status["agents"]:
        applied = "applied" if agent["snapshot"] == status["snapshot"] else paint("applying", "yellow")
        spooled = f", {agent['spooled_records']} records waiting" if agent["spooled_records"] else ""
        lines.append(f"agent         {agent['id']} ({applied}, bundle {agent['bundle_sequence']}{spooled})")
    for reason, told in status.get("records_lost", {}).items():
        more = " and an unknown number more" if told["times_unknown"] else ""
        lines.append(f"records lost  {told['records']}{more} ({reason})")
    if not status["agents"]:
        lines.append(paint("agent         none connected", "red"))
    for name, export in status.get("exports", {}).items():
        trouble = f": {printable(export['last_error'])}" if export["last_error"] else ""
        lines.append(
            paint(f"export        {name} ({export['behind']} behind){trouble}", "red" if trouble else "dim")
        )
    if urls := status.get("urls"):
        lines.append(f"issuer        {urls.get('issuer')}")
    rows: list[list[object]] = []
    edges = any(i.get("edge") for service in status["services"].values() for i in service["instances"])
    for name, service in status["services"].items():
        rows += [
            [name, i["id"], i["state"], i["pid"], i["ingress"], i["app"], i["svid_expires_at"]]
            + ([i.get("edge")] if edges else [])
            for i in service["instances"]
        ] or [[name, None, "no instance", *[None] * (4 + edges)]]
    header = ["service", "instance", "state", "pid", "ingress", "app", "svid expires", *["edge"] * edges]
    return "\n".join([*lines, "", table(header, rows)])
