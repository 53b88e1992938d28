# SPDX-License-Identifier: Apache-2.0
"""nginx before each service: mutual TLS, and everyhop's authorizer asked for every request.

nginx has no variable for the SPIFFE ID of a certificate, so it passes the certificate on and the authorizer reads it.  Two traps
shape the text: ``return`` in a location runs before ``auth_request`` and skips it, so the only locations that a client reaches
are those that proxy; and ``satisfy any`` would let an address stand for the answer, so it never occurs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.dataplane._names import SNAPSHOT_DIGITS
from everyhop.targets._asking import asking
from everyhop.targets._standalone import plain_path, port_option
from everyhop.targets.model import File

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from everyhop.targets._asking import AskedService
    from everyhop.targets._standalone import Address
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

FROM_AUTHORIZER: Final = (
    ("X-Everyhop-Caller", "caller", "x_everyhop_caller"),
    ("X-Everyhop-Operation", "operation", "x_everyhop_operation"),
    ("X-Everyhop-Decision", "decision", "x_everyhop_decision"),
    ("X-Everyhop-User", "user", "x_everyhop_user"),
    ("X-Everyhop-User-Roles", "roles", "x_everyhop_user_roles"),
    ("Txn-Token", "txn", "txn_token"),
)
"""Headers that an application believes: the field, our variable, and where the authorizer's answer has it."""

CLEARED: Final = (
    "X-Forwarded-Client-Cert",
    "X-Forwarded-Host",
    "X-Forwarded-Path",
    "X-Forwarded-Prefix",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Forwarded-User",
    "Forwarded",
    "X-Envoy-Internal",
    "X-Envoy-Original-Path",
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "X-Original-Method",
    "X-Original-URI",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Client-Certificate",
    "X-Client-Address",
    "X-Everyhop-Source",
)
"""Headers in which a client could claim another identity, method, path or origin."""

_STATUSES: Final = (400, 401, 429, 503)

_HEAD: Final = """\
# everyhop policy compile --target nginx; do not edit.  Snapshot @SNAPSHOT@, service @SERVICE@.
# Certificates are read when nginx starts or reloads: reload it after `everyhop svid fetch @SERVICE@ --write @CERTIFICATES@`.
# The user of the workers is one of `authorizers` in everyhop.toml, with service = "@SERVICE@".
#
# The authorizer decides:
@NOTES@

worker_processes auto;
events {
    worker_connections 1024;
}

http {
    log_format everyhop escape=json
        '{"kind":"in","time":"$time_iso8601","target":"@SERVICE@","id":"$everyhop_decision","caller":"$everyhop_caller",'
        '"operation":"$everyhop_operation","method":"$request_method","path":"$everyhop_shown","status":$status,'
        '"code":"$everyhop_code","s":$request_time}';
    access_log /var/log/nginx/@SERVICE@.everyhop.log everyhop;

    upstream everyhop {
        server unix:@SOCKET@;
        keepalive 16;
    }
    upstream application {
        server @UPSTREAM@;
        keepalive 16;
    }

    # The path as the client sent it, without its query: $uri is another reading of it.
    map $request_uri $everyhop_path {
        "~^(?<everyhop_raw>[^?]*)" $everyhop_raw;
    }
    # In the log, a path that is no plain text is a dash; the authorizer's record has it.
    map $everyhop_path $everyhop_shown {
        default            "-";
        "~^[!-~]{1,4096}$" $everyhop_path;
    }
    # HTTP/2 has no transfer coding.
    map "$server_protocol $http_transfer_encoding" $everyhop_coded {
        default          0;
        "~^HTTP/2[.]0 ." 1;
    }
"""

_SERVER: Final = """\

    server {
        listen @PORT@ ssl http2;
        server_name _;

        ssl_certificate        @CERTIFICATES@/svid.pem;
        ssl_certificate_key    @CERTIFICATES@/key.pem;
        ssl_client_certificate @CERTIFICATES@/bundle.pem;
        ssl_verify_client      on;
        ssl_verify_depth       4;
        ssl_protocols          TLSv1.3;
        # A resumed session would skip the check of a certificate that has expired since.
        ssl_session_tickets    off;
        ssl_session_cache      off;

        # x_everyhop_user is dropped, and a path is forwarded as it came.
        underscores_in_headers off;
        ignore_invalid_headers on;
        merge_slashes          off;

        client_max_body_size        16m;
        client_body_timeout         30s;
        client_header_timeout       5s;
        large_client_header_buffers 4 16k;
        keepalive_timeout           300s;
        server_tokens               off;

        # These only refuse: a target that brings a host of its own, a coding that HTTP/2 has not, a host that is none.
        if ($request ~ "^[^ ]+ +[A-Za-z]+://")    { return 400; }
        if ($everyhop_coded)                      { return 400; }
        if ($http_host ~ "[^A-Za-z0-9._~%\\[\\]:-]") { return 400; }
@SHUT@
        location = /.everyhop {
            internal;
            auth_request            off;
            proxy_pass              http://everyhop/nginx/@SERVICE@;
            proxy_http_version      1.1;
            proxy_pass_request_body off;
            proxy_connect_timeout   1s;
            proxy_read_timeout      3s;
            proxy_set_header        Host everyhop;
            proxy_set_header        Connection "";
            proxy_set_header        Content-Length "";
            # Each of these is needed: without one, a client could write the header itself.
            proxy_set_header        X-Original-Method $request_method;
            proxy_set_header        X-Original-URI $request_uri;
            proxy_set_header        X-Client-Certificate $ssl_client_escaped_cert;
            proxy_set_header        X-Client-Address $remote_addr;
            # nginx would hide it; the authorizer refuses it where no WebSocket is declared.
            proxy_set_header        Upgrade $http_upgrade;
        }
"""


class Nginx:
    """``nginx/SERVICE/nginx.conf`` for ``nginx -c``, for each service that speaks HTTP."""

    name: Final = "nginx"
    summary: Final = "nginx.conf for each service: mutual TLS, auth_request to everyhop's authorizer"

    def compile(self, view: View) -> tuple[Sequence[File], Sequence[Diagnostic]]:
        """Return one file for each service; raises InputError for options that name no address or path."""
        certificates, port = plain_path(view, "certificates"), port_option(view, "listen_port")
        found = asking(view)
        snapshot = view.intents.snapshot.hash[:SNAPSHOT_DIGITS]
        files = [
            File(
                path=f"nginx/{service.name}/nginx.conf",
                content=_configuration(service, found.socket, certificates, port, snapshot).encode(),
            )
            for service in found.services
        ]
        return files, found.diagnostics


def _configuration(service: AskedService, socket: str, certificates: str, port: int, snapshot: str) -> str:
    parts = [_HEAD, *_maps(service), _SERVER, *_locations(service), _refusals(), "    }\n}\n"]
    text = "".join(parts)
    for mark, value in {
        "NOTES": "\n".join(f"#   {note}" for note in service.notes),
        "SNAPSHOT": snapshot,
        "SERVICE": service.name,
        "SOCKET": socket,
        "CERTIFICATES": certificates,
        "UPSTREAM": _server(service.upstream),
        "PORT": str(port),
        "SHUT": "        if ($everyhop_shut) { return 403; }\n" if service.lines else "",
    }.items():
        text = text.replace(f"@{mark}@", value)
    return text


def _server(upstream: Address) -> str:
    return f"unix:{upstream.socket}" if upstream.socket is not None else f"{upstream.host}:{upstream.port}"


def _maps(service: AskedService) -> Iterator[str]:
    if service.has_websockets:
        yield """\
    # Nothing but a WebSocket goes on as an upgrade.
    map $http_upgrade $everyhop_upgrade {
        default        "";
        "~*^websocket$" websocket;
    }
    map $everyhop_upgrade $everyhop_connection {
        default   "";
        websocket upgrade;
    }
"""
    if service.lines:
        yield "    # Doors that need what nobody here holds; the first expression that meets decides.\n"
        yield '    map "$request_method $everyhop_path" $everyhop_shut {\n        default 0;\n'
        for line in service.lines:
            # Always an expression: nginx compares the other keys of a map without regard to case.
            path = _escaped(line.path) if line.is_literal else line.path
            key = _quoted(f"~^{_escaped(line.method)} (?:{path})$")
            yield f"        {key} {int(line.is_shut)};\n"
        yield "    }\n"


def _locations(service: AskedService) -> Iterator[str]:
    for path in service.grpc_paths:
        yield f"\n        location = {path} {{\n"
        yield from _asked(service, "grpc_set_header")
        yield "            # No path behind the address, or nginx would forward another one than was decided on.\n"
        yield "            grpc_pass grpc://application;\n        }\n"
    yield "\n        location / {\n"
    yield from _asked(service, "proxy_set_header")
    yield "            proxy_http_version 1.1;\n"
    if service.has_websockets:
        yield "            proxy_set_header Upgrade    $everyhop_upgrade;\n"
        yield "            proxy_set_header Connection $everyhop_connection;\n"
        yield "            proxy_read_timeout 3600s;\n"
    else:
        yield '            proxy_set_header Connection "";\n'
    yield "            # A call is sent once: what failed half way is for the caller to send again.\n"
    yield "            proxy_next_upstream off;\n"
    yield "            # No path behind the address, or nginx would forward another one than was decided on.\n"
    yield "            proxy_pass http://application;\n        }\n"


def _asked(service: AskedService, directive: str) -> Iterator[str]:
    del service
    yield "            # No `return` or `rewrite` here: they run before auth_request and would skip it.\n"
    yield "            auth_request /.everyhop;\n"
    answered = [(name, source) for _, name, source in FROM_AUTHORIZER]
    answered += [("status", "x_everyhop_status"), ("code", "x_everyhop_code"), ("retry", "retry_after")]
    yield from _aligned(
        "auth_request_set", [(f"$everyhop_{name}", f"$upstream_http_{source}") for name, source in answered]
    )
    yield "            error_page 401 403 = @everyhop_refused;\n"
    yield "            error_page 500 = @everyhop_unavailable;   # the authorizer is away, or answered neither yes nor no\n"
    yield "            # An empty value removes a header.\n"
    fields = [("Host", "$host")]
    fields += [(field, f"$everyhop_{name}") for field, name, _ in FROM_AUTHORIZER]
    fields += [("X-Forwarded-For", "$remote_addr"), ("X-Forwarded-Proto", "$scheme")]
    fields += [(field, '""') for field in CLEARED]
    yield from _aligned(directive, fields)


def _aligned(directive: str, pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    rows = list(pairs)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        yield f"            {directive} {name:<{width}} {value};\n"


def _refusals() -> str:
    def answer(status: int) -> str:
        body = '{"type":"about:blank","status":%d,"code":"$everyhop_code","decision":"$everyhop_decision"}'
        return f"return {status} '{body % status}';"

    lines = [
        "\n        # Named locations are reached from above only.\n",
        "        location @everyhop_refused {\n",
        "            default_type application/problem+json;\n",
        "            add_header   X-Everyhop-Decision $everyhop_decision always;\n",
        "            add_header   Retry-After         $everyhop_retry always;\n",
    ]
    lines += [
        f"            if ($everyhop_status = {status}) {{ {answer(status)} }}\n" for status in _STATUSES
    ]
    lines += [
        f"            {answer(403)}\n        }}\n",
        "\n        location @everyhop_unavailable {\n",
        "            default_type application/problem+json;\n",
        '            return 503 \'{"type":"about:blank","status":503,"code":"CHECK_UNAVAILABLE"}\';\n        }\n',
    ]
    return "".join(lines)


def _escaped(text: str) -> str:
    return "".join(c if c.isalnum() else f"\\{c}" for c in text)


def _quoted(text: str) -> str:
    """Return a word of nginx in quotes; in them, a backslash, a quote and a dollar sign that ends nothing are kept."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


TARGET: Final = Nginx()
