# SPDX-License-Identifier: Apache-2.0
"""haproxy before each service: mutual TLS, and a Lua action that asks everyhop's authorizer for every request.

haproxy knows no SPIFFE ID either, so the client's certificate goes along.  A rule behind the action refuses whatever it did not
expressly allow: an action that fails, or runs out of time, has said nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from everyhop.dataplane._names import SNAPSHOT_DIGITS
from everyhop.targets._asking import asking
from everyhop.targets._standalone import plain_path, port_option
from everyhop.targets.haproxy_lua import program
from everyhop.targets.model import File

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from everyhop.targets._asking import AskedService, Line
    from everyhop.targets._standalone import Address
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

_CONFIGURATION: Final = """\
# everyhop policy compile --target haproxy; do not edit.  Snapshot @SNAPSHOT@, service @SERVICE@.
# Certificates are read when haproxy starts or reloads: reload it after `everyhop svid fetch @SERVICE@ --write @CERTIFICATES@`.
# Once: `ln -s key.pem @CERTIFICATES@/svid.pem.key`, because haproxy looks for the key under that name.
# The user haproxy is one of `authorizers` in everyhop.toml, with service = "@SERVICE@".
#
# The authorizer decides:
@NOTES@

global
    user haproxy
    group haproxy
    log stdout len 32768 format raw local0
    lua-load @DIRECTORY@/everyhop.lua
    # The action has its own time-outs; this one ends what they do not.
    tune.lua.session-timeout 5s
    ssl-default-bind-options ssl-min-ver TLSv1.3 ssl-max-ver TLSv1.3 no-tls-tickets
    tune.ssl.cachesize 0

defaults
    mode http
    log global
    option http-restrict-req-hdr-names reject
    timeout connect 2s
    timeout client 300s
    timeout http-request 5s
    timeout server 300s
    timeout tunnel 3600s
    retries 0

frontend everyhop
    bind :@PORT@ ssl crt @CERTIFICATES@/svid.pem ca-file @CERTIFICATES@/bundle.pem verify required alpn h2,http/1.1
    log-format '{"kind":"in","time":"%[date,utime(%%Y-%%m-%%dT%%H:%%M:%%SZ)]","target":"@SERVICE@","id":"%[var(txn.everyhop_decision),json(utf8s)]","caller":"%[var(txn.everyhop_caller),json(utf8s)]","operation":"%[var(txn.everyhop_operation),json(utf8s)]","method":"%[var(txn.everyhop_method),bytes(0,64),json(utf8s)]","path":"%[var(txn.everyhop_path),bytes(0,2048),json(utf8s)]","status":%ST,"ms":%Ta}'
    http-request set-var(txn.everyhop_method) method
    http-request set-var(txn.everyhop_path) path

    # Refused before anything is asked: a target that brings a host of its own, a host that is none, an upgrade to anything
    # but a WebSocket.
    http-request deny deny_status 400 if { req.ver 1.0 1.1 } !{ url_beg / }
    http-request deny deny_status 400 if { req.hdr(host) -m reg '[^A-Za-z0-9._~%\\[\\]:-]' }
    http-request deny deny_status 400 if { req.hdr_cnt(host) gt 1 }
    http-request deny deny_status 403 if { req.hdr(upgrade) -m found } !{ req.hdr(upgrade) -m str -i websocket }
@SHUT@
    # What a client claims about itself, and other readings of method and path.
@CLEARED@
    http-request lua.everyhop
    http-request deny deny_status 503 unless { var(txn.everyhop) -m str allowed }
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto https
@ROUTES@    default_backend application

backend application
    server application @UPSTREAM@
@GRPC@"""

_PREFIXES: Final = ("x-everyhop-", "x-forwarded-", "x-original-", "x-envoy-", "x-client-")
_NAMES: Final = ("forwarded", "x-rewrite-url", "x-http-method-override", "x-http-method", "x-method-override")


class Haproxy:
    """``haproxy/SERVICE/haproxy.cfg`` and ``everyhop.lua``, for each service that speaks HTTP."""

    name: Final = "haproxy"
    summary: Final = "haproxy.cfg for each service: mutual TLS, a Lua action that asks everyhop's authorizer"

    def compile(self, view: View) -> tuple[Sequence[File], Sequence[Diagnostic]]:
        """Return two files for each service; raises InputError for options that name no address or path."""
        certificates, port = plain_path(view, "certificates"), port_option(view, "listen_port")
        directory = plain_path(view, "directory")
        found = asking(view)
        snapshot = view.intents.snapshot.hash[:SNAPSHOT_DIGITS]
        files: list[File] = []
        for service in found.services:
            text = _CONFIGURATION
            for mark, value in {
                "SHUT": "".join(_shut(service)),
                "CLEARED": "\n".join(_cleared()),
                "ROUTES": "".join(_routes(service)),
                "GRPC": "".join(_grpc(service)),
                "NOTES": "\n".join(f"#   {note}" for note in service.notes),
                "SNAPSHOT": snapshot,
                "SERVICE": service.name,
                "CERTIFICATES": certificates,
                "DIRECTORY": f"{directory}/{service.name}",
                "UPSTREAM": _server(service.upstream),
                "PORT": str(port),
            }.items():
                text = text.replace(f"@{mark}@", value)
            path = f"haproxy/{service.name}"
            files += [
                File(path=f"{path}/haproxy.cfg", content=text.encode()),
                File(path=f"{path}/everyhop.lua", content=program(service.name, found.socket).encode()),
            ]
        return files, found.diagnostics


def _server(upstream: Address) -> str:
    return f"unix@{upstream.socket}" if upstream.socket is not None else f"{upstream.host}:{upstream.port}"


def _cleared() -> Iterator[str]:
    for prefix in _PREFIXES:
        yield f"    http-request del-header {prefix} -m beg"
    for name in _NAMES:
        yield f"    http-request del-header {name}"


def _shut(service: AskedService) -> Iterator[str]:
    if not service.lines:
        return
    yield "\n    # Doors that need what nobody here holds; the first expression that meets decides.\n"
    for line in service.lines:
        value = "shut" if line.is_shut else "open"
        yield f"    http-request set-var(txn.everyhop_door) str({value}) if !{{ var(txn.everyhop_door) -m found }} {_meets(line)}\n"
    yield "    http-request deny deny_status 403 if { var(txn.everyhop_door) -m str shut }\n"


def _meets(line: Line) -> str:
    path = re.escape(line.path) if line.is_literal else line.path
    method = re.escape(line.method)
    return f"{{ method -m reg -- {_quoted(f'^{method}$')} }} {{ path -m reg -- {_quoted(f'^(?:{path})$')} }}"


def _routes(service: AskedService) -> Iterator[str]:
    for path in service.grpc_paths:
        yield f"    use_backend application_h2 if {{ path -m str -- {_quoted(path)} }}\n"


def _grpc(service: AskedService) -> Iterator[str]:
    if service.grpc_paths:
        yield "\nbackend application_h2\n"
        yield f"    server application {_server(service.upstream)} proto h2\n"


def _quoted(expression: str) -> str:
    """Return an expression in strong quotes, in which haproxy gives nothing a meaning but the quote itself."""
    return "'" + expression.replace("'", r"\x27") + "'"


TARGET: Final = Haproxy()
