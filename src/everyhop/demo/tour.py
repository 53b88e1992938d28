# SPDX-License-Identifier: Apache-2.0
"""The guided tour from start to end."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from everyhop.core.errors import EveryhopError, Unavailable
from everyhop.demo import report
from everyhop.demo.attacks import all_attacks
from everyhop.demo.flows import flows
from everyhop.demo.judge import judge, log_lookup, observe
from everyhop.demo.range import Range
from everyhop.demo.stage import Stage, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from everyhop.demo.model import Result

_SERVED: Final = ("storefront", "orders", "payments", "ledger", "notify")
_SETTLE_SECONDS: Final = 15.0
_PAGE: Final = 1000


class _Stopped(Exception):  # noqa: N818  # not an error: somebody asked
    """SIGTERM or SIGHUP arrived."""


def run_demo(*, keep: bool, verbose: bool, as_json: bool) -> int:
    """Run the tour; return 0 only if every result is the expected one.

    ``keep`` leaves everything running at the end until Ctrl-C.  Whatever happens, all processes that were started
    are ended and the temporary state directory is removed.
    """

    def say(text: str) -> None:
        if not as_json:
            print(text, flush=True)

    started = time.monotonic()
    try:
        with _stoppable(), Stage() as stage:
            field = set_up(stage, say)
            legitimate, attacks = perform(field, say)
            records = count_records(field)
            seconds = time.monotonic() - started
            if as_json:
                print(json.dumps(report.document(legitimate, attacks, records, seconds), indent=2))
            else:
                print(report.render(legitimate, verbose=verbose))
                print(report.render(attacks, verbose=verbose))
                print(f"\n{report.summary(legitimate, attacks, records, seconds)}", flush=True)
                _show_why(field, attacks)
            if keep:
                with suppress(KeyboardInterrupt):
                    _wait(
                        stage, say if not as_json else lambda text: print(text, file=sys.stderr, flush=True)
                    )
            return report.exit_code([*legitimate, *attacks])
    except EveryhopError as error:
        print(f"everyhop demo: {error.message}", file=sys.stderr)
        return 1
    except _Stopped:
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def set_up(stage: Stage, say: Callable[[str], None]) -> Range:
    """Start the trust domain and the shop; return the field to play on.  Raises Unavailable."""
    started = time.monotonic()
    say(f"everyhop demo: a shop of five services, each behind its own sidecar, in {stage.base}")
    stage.up()
    say(f"  {time.monotonic() - started:4.1f} s  everyhop up is ready")
    start_shop(stage, say)
    status = stage.wait_ready(_SERVED)
    for puppet in stage.puppets.values():
        puppet.wait_ready(_SETTLE_SECONDS)
    field = Range(stage, status)
    if not wait_for(lambda: _is_reachable(field), _SETTLE_SECONDS):
        raise Unavailable("the services do not find each other")
    say(f"  {time.monotonic() - started:4.1f} s  every service is ready and found by its callers")
    return field


def start_shop(stage: Stage, say: Callable[[str], None]) -> None:
    """Start every service as a user would: ``everyhop run SERVICE -- CMD``."""
    python, shop = sys.executable, stage.shop
    stage.run("storefront", python, str(shop / "storefront.py"), options=("--edge", "0"))
    stage.run(
        "orders", python, "-m", "uvicorn", "orders:app", "--app-dir", str(shop), "--log-level", "warning"
    )
    stage.run("payments", python, str(shop / "payments.py"))
    stage.run("ledger", python, str(shop / "ledger.py"))
    if node := shutil.which("node"):
        stage.run("notify", node, str(shop / "notify.js"))
        kind = "notify on Node"
    else:
        stage.run("notify", python, str(shop / "notify.py"))
        kind = "notify on Python, because there is no node on PATH"
    for name in ("shopper", "intruder"):
        stage.run_puppet(name)
    say(f"         storefront on WSGI, orders on ASGI, payments on http.server, ledger on tcp, {kind}")


def perform(field: Range, say: Callable[[str], None]) -> tuple[list[Result], list[Result]]:
    """Make the legitimate calls and the attacks; return their results."""
    started = time.monotonic()
    good = observe(flows(), field, prefix="flow-")
    say(f"  {time.monotonic() - started:4.1f} s  {len(good)} legitimate calls made")
    bad = observe(all_attacks(), field, prefix="attack-")
    say(f"  {time.monotonic() - started:4.1f} s  {len(bad)} attacks made; looking up each decision")
    record_of, marks = log_lookup(field), field.marks()
    return judge(good, record_of=record_of, marks=marks), judge(bad, record_of=record_of, marks=marks)


def count_records(field: Range) -> int:
    """Return how many decisions the log holds, once the sidecars' spools are empty."""
    wait_for(lambda: all(a["spooled_records"] == 0 for a in field.stage.status()["agents"]), 5.0)
    count, cursor = 0, 0
    while True:
        page: dict[str, Any] = field.stage.admin.get(
            "/v1/records", kind="decision", after=cursor, limit=_PAGE
        )
        count, cursor = count + len(page["records"]), page["cursor"]
        if not page["more"]:
            return count


def _is_reachable(field: Range) -> bool:
    """Tell whether the longest chain of calls works: endpoints reach sidecars a moment after ``ready``."""
    order = field.request("POST", "/checkout", "storefront")
    return field.stage.puppets["shopper"].send("egress", order).status == http.client.OK


def _show_why(field: Range, attacks: list[Result]) -> None:
    """Ask ``everyhop why`` about one refusal, as an operator would."""
    refused = next((r for r in attacks if r.reason == "no-rule" and r.decision), None)
    if refused is None or refused.decision is None:
        return
    print(f"\n{report.paint(f'$ everyhop why {refused.decision}', 'bold')}")
    print(field.stage.everyhop("why", refused.decision).stdout.rstrip(), flush=True)


def _wait(stage: Stage, say: Callable[[str], None]) -> None:
    """Leave everything running until a signal arrives."""
    say(
        f"""
everything keeps running until Ctrl-C; in another terminal:
  export EVERYHOP_STATE={stage.layout.root}
  everyhop status
  everyhop call storefront GET / --as shopper
  everyhop call orders GET /admin/export --as storefront
  everyhop log tail --denied
  everyhop envoy show orders
  the policy to edit: {stage.policy}"""
    )
    while True:
        signal.pause()


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception, so that everything is cleaned up on the way out."""

    def stop(number: int, frame: object) -> NoReturn:
        del frame
        for other in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(other, signal.SIG_IGN)  # a second one must not cut the cleaning short
        raise _Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
