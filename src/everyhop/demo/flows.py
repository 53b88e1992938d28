# SPDX-License-Identifier: Apache-2.0
"""The legitimate calls: each is shown with what the callee saw as its caller."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from everyhop.demo import http2
from everyhop.demo.identities import decode_identity
from everyhop.demo.model import Attempt, Seen
from everyhop.demo.puppet import AUTHORIZATION
from everyhop.demo.stage import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from everyhop.demo.range import Range

_THEME: Final = "legitimate"
_OWN: Final = ("proxy-authorization", AUTHORIZATION.decode())


class Checkout:
    """One call through the whole chain, shown callee by callee."""

    def __init__(self) -> None:
        self._answer: dict[str, Any] = {}

    def call(self, field: Range) -> Seen:
        """Make the call and show what its first callee saw."""
        data = field.request("POST", "http://storefront/checkout", "storefront", headers=[_OWN], body=b"{}")
        reply = field.stage.puppets["shopper"].send("proxy", data, patience=15.0)
        self._answer = reply.json
        return Seen(text=f"{reply.text}, {_who(reply.json)}")

    def part(self, *keys: str) -> Callable[[Range], Seen]:
        """Return what shows one callee further down the chain."""

        def run(field: Range) -> Seen:
            del field
            found = self._answer
            for key in keys:
                found = found.get(key, {})
            runtime = found.get("runtime")
            return Seen(text=_who(found), note=f"on {runtime}" if runtime else None)

        return run


def _who(answer: dict[str, Any]) -> str:
    """Say which service saw which caller."""
    caller = str(answer.get("caller")).rpartition("/")[2]
    ledger = f", ledger said {str(answer['ledger']).split()[0]}" if answer.get("ledger") else ""
    return f"{answer.get('service')} saw {caller}{ledger}"


def _home(field: Range) -> Seen:
    data = field.request("GET", "http://storefront/", "storefront", headers=[_OWN])
    reply = field.stage.puppets["shopper"].send("proxy", data)
    return Seen(text=f"{reply.text}, {_who(reply.json)}")


def _home_by_socket(field: Range) -> Seen:
    data = field.request("GET", "/", "storefront")
    reply = field.stage.puppets["shopper"].send("egress", data)
    return Seen(text=f"{reply.text}, {_who(reply.json)}")


def _websocket(field: Range) -> Seen:
    headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", base64.b64encode(b"everyhop's demo!").decode()),
    ]
    data = field.request("GET", "/live", "notify", headers=headers)
    reply = field.stage.puppets["shopper"].send("egress", data)
    text = reply.rest[2:].partition(b"\x88")[0].decode("utf-8", "replace")
    return Seen(text=f"{reply.text}, {text}")


def _tcp_record(field: Range) -> Seen:
    """Ask the decision log who called the ledger: the application itself cannot know."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        page = field.stage.admin.get("/v1/records", service="ledger", decision="allow", limit=5)
        found[:] = [r for r in page["records"] if r["point"] == "ingress"]
        return bool(found)

    wait_for(look, 5.0)
    who = str(found[0].get("caller")).rpartition("/")[2] if found else "nobody"
    return Seen(text=f"the log knows: {who}")


def _own_identity(field: Range) -> Seen:
    answer = field.stage.puppets["shopper"].ask(do="svid")
    if "end" in answer:
        return Seen(text=str(answer["end"]))
    leaf = x509.load_der_x509_certificate(decode_identity(answer).chain[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return Seen(text=", ".join(names.get_values_for_type(x509.UniformResourceIdentifier)))


def _http2(field: Range) -> Seen:
    headers = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "orders"),
        (":path", "/files/caf%C3%A9.txt"),
    ]
    with field.connect("orders", field.identity("storefront"), alpn=("h2",)) as connection:
        reply = http2.call(connection, headers)
    return Seen(text=f"{reply.text}, {_who(reply.json)}")


def _probe(field: Range) -> Seen:
    reply = field.call("intruder", "orders", "GET", "/healthz")
    return Seen(text=f"{reply.text}, {_who(reply.json)}")


def _command(field: Range) -> Seen:
    """Make a call by ``everyhop call``, as an operator would."""
    done = field.stage.everyhop("call", "storefront", "GET", "/", "--as", "shopper")
    if done.returncode:
        return Seen(text=f"exit code {done.returncode}: {done.stderr.strip()[:200]}")
    return Seen(text=f"exit code 0, {_who(json.loads(done.stdout))}")


def _from_outside(field: Range) -> dict[str, Any]:
    key, lookup = field.treasury.api_key("storefront.checkout")
    headers = [("authorization", f"Bearer {key}")]
    reply = field.outside("storefront", "POST", "/checkout", headers=headers, body=b"{}")
    return {"text": reply.text, "for": f"apikey:{lookup}", "answer": reply.json}


class FromOutside:
    """A client with an API key, carried through the chain; shown callee by callee."""

    def __init__(self) -> None:
        self._seen: dict[str, Any] = {}

    def call(self, field: Range) -> Seen:
        """Make the call at the edge and show what the storefront saw."""
        self._seen = _from_outside(field)
        return Seen(text=f"{self._seen['text']}, {self._whom(self._seen['answer'])}")

    def part(self, *keys: str) -> Callable[[Range], Seen]:
        """Return what shows for whom a callee further down the chain was called."""

        def run(field: Range) -> Seen:
            del field
            found = self._seen.get("answer", {})
            for key in keys:
                found = found.get(key, {})
            return Seen(text=self._whom(found))

        return run

    def _whom(self, answer: dict[str, Any]) -> str:
        caller = str(answer.get("caller")).rpartition("/")[2]
        whom = "the key" if answer.get("user") == self._seen.get("for") else str(answer.get("user"))
        return f"{answer.get('service')} saw {caller} for {whom}"


def _report(field: Range) -> Seen:
    reply = field.call("storefront", "orders", "GET", "/reports/2026", headers=[("x-region", "eu")])
    return Seen(text=f"{reply.text}, {_who(reply.json)}")


def _single_use(field: Range) -> Seen:
    """Make three calls, each with a token of its own."""
    seen = []
    for _ in range(3):
        headers = [("authorization", f"Bearer {field.treasury.mint('orders', 'payments')}")]
        seen.append(
            field.call("orders", "payments", "POST", "/v1/captures", headers=headers, body=b"{}").text
        )
    return Seen(text=" ".join(seen))


def _token_endpoint(field: Range) -> Seen:
    form = b"grant_type=client_credentials&audience=payments&scope=payments.charge"
    reply = field.server("POST", "/oauth/token", form, caller="orders")
    return Seen(text=f"{reply.text}, {reply.json.get('scope')} for {reply.json.get('expires_in')} s")


def flows() -> list[Attempt]:
    """Return the legitimate calls in the order of the table."""
    checkout, outside = Checkout(), FromOutside()
    rows: list[tuple[str, str, Callable[[Range], Seen]]] = [
        ("home page through the HTTP proxy", "200, storefront saw shopper", _home),
        ("home page through the Unix socket", "200, storefront saw shopper", _home_by_socket),
        ("checkout: WSGI", "200, storefront saw shopper", checkout.call),
        ("  which calls ASGI", "orders saw storefront", checkout.part("next")),
        (
            "  which calls http.server, which opens tcp",
            "payments saw orders, ledger said OK",
            checkout.part("next", "next"),
        ),
        (
            "  and again, tcp by CONNECT",
            "payments saw orders, ledger said OK",
            checkout.part("next", "balance"),
        ),
        ("  and the notifier", "notify saw orders", checkout.part("next", "also")),
        ("WebSocket where it is declared", "101, hello spiffe://shop.example/service/shopper", _websocket),
        ("who called the ledger (tcp)", "the log knows: payments", _tcp_record),
        ("own SVID from the Workload API", "spiffe://shop.example/service/shopper", _own_identity),
        ("HTTP/2, a path with an encoded é", "200, orders saw storefront", _http2),
        ("a declared probe, by a service without rights", "200, orders saw intruder", _probe),
        ("a report under its condition", "200, orders saw storefront", _report),
        ("a client with an API key, at the edge", "200, storefront saw outside for the key", outside.call),
        ("  which calls orders for it", "orders saw storefront for the key", outside.part("next")),
        ("  which pays for it", "payments saw orders for the key", outside.part("next", "next")),
        ("three calls with single-use tokens", "200 200 200", _single_use),
        ("a token by the client's certificate", "200, payments.charge for 300 s", _token_endpoint),
        ("everyhop call storefront GET / --as shopper", "exit code 0, storefront saw shopper", _command),
    ]
    return [
        Attempt(theme=_THEME, name=name, expected=expected, run=run, reaches=True)
        for name, expected, run in rows
    ]
