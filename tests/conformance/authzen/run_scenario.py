# SPDX-License-Identifier: Apache-2.0
"""Run the certification scenario against any PDP: ``run_scenario.py URL [--cacert F] [--cert F --key F] [--bearer-file F]``.

The PDP is loaded with the scenario's fixture (for ours: ``--policy`` prints it).  Prints a line for each level and what
failed; exits 0 when every level passes.
"""

from __future__ import annotations

import argparse
import ssl
import sys
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parent))

import scenario
from authzen_policies import CERTIFICATION


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", help="base URL of the PDP, https, without a slash at its end")
    parser.add_argument("--cacert", help="authorities of the PDP's certificate (PEM)")
    parser.add_argument("--cert", help="certificate of the PEP (PEM)")
    parser.add_argument("--key", help="its key (PEM)")
    parser.add_argument("--bearer-file", type=Path, help="file with a bearer credential of the PEP")
    parser.add_argument("--policy", action="store_true", help="print the fixture as a policy of everyhop")
    args = parser.parse_args(arguments)
    if args.policy:
        print(CERTIFICATION.replace("CALLER", "[gateway, outside]"), end="")
        return 0
    if args.url is None:
        parser.error("name the URL of a PDP")
    context = ssl.create_default_context(cafile=args.cacert)
    if args.cert:
        context.load_cert_chain(args.cert, args.key)
    headers = {"authorization": f"Bearer {args.bearer_file.read_text().strip()}"} if args.bearer_file else {}
    with httpx.Client(verify=context, base_url=args.url, headers=headers, timeout=20) as client:
        return report(client, args.url)


def report(client: httpx.Client, url: str) -> int:
    """Run every level and print what came out; return the exit code."""
    found, problems = scenario.discover(client, url)
    pdp = scenario.Pdp(client, {**scenario.DEFAULT_PATHS, **found})
    levels: dict[str, tuple[int, list[str]]] = {"Discovery": (1, problems)}
    for check in scenario.CHECKS:
        count, failed = levels.get(check.level, (0, []))
        levels[check.level] = (count + 1, [*failed, *scenario.run(pdp, check)])
    count, failed = levels["Search Core"]
    levels["Search Core"] = (count + 1, [*failed, *scenario.run_pages(pdp)])
    for level, (count, failed) in levels.items():
        print(f"{level:<18} {count:>3} checks  {'passed' if not failed else f'{len(failed)} FAILED'}")
        for problem in failed:
            print(f"    {problem}")
    return 1 if any(failed for _, failed in levels.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
