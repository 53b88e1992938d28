# SPDX-License-Identifier: Apache-2.0
"""nginx as text: every location that a client reaches asks first.  What it does is tested with the real one."""

import re

import pytest
from tests.support.golden_proxies import check_golden

from everyhop.core.errors import InputError
from everyhop.policy import parse_policy
from everyhop.targets import compile_policy

POLICY = """
version: 1
trust_domain: shop.example
services:
  web: {}
  orders:
    operations:
      list: GET /orders
      big: {route: "POST /big/{id}", resource: application}
      dot: GET /big/a.b
      "live": {websocket: /live}
    probes: [GET /healthz]
  rpc: {operations: {get: {grpc: shop.v1.Rpc/Get}}}
  db: {tcp: 5432}
  trap: {canary: true}
allow:
  - {from: web, to: orders, operations: all}
  - {from: web, to: rpc, operations: all}
  - {from: web, to: db}
targets:
"""
ASKED = "  nginx: {authorizer: 'unix:/run/a.sock'}\n"
LOCATION = re.compile(
    r"^        location (?P<name>[^\n]*?) \{\n(?P<body>.*?)^        \}", re.DOTALL | re.MULTILINE
)


def compiled(settings=ASKED, policy=POLICY, beside=()):
    snapshot = parse_policy({"everyhop.yaml": (policy + settings).encode()})
    (found,) = compile_policy(snapshot, ["nginx"], beside=beside)
    return {file.path: file.content.decode() for file in found.files}, found


def locations(text):
    return {match["name"]: match["body"] for match in LOCATION.finditer(text)}


def codes(found):
    return {one.code for one in found.diagnostics if one.is_error}


def test_without_an_authorizer_there_is_no_file():
    files, found = compiled("  nginx: {}\n")
    assert files == {}
    assert {"nginx.authorizer", "nginx.identity", "nginx.route"} <= codes(found)


def test_an_authorizer_on_tcp_is_refused_because_nginx_cannot_tell_who_answers():
    files, found = compiled("  nginx: {authorizer: 'auth.example:9443'}\n")
    assert files == {}
    assert "nginx.authorizer" in codes(found)


@pytest.mark.parametrize(
    "settings",
    [
        "  nginx: {authorizer: 'unix:/run/a.sock;}'}\n",
        "  nginx: {authorizer: 'unix:/run/a.sock', certificates: '/etc/x;return'}\n",
        "  nginx: {authorizer: 'unix:/run/$host'}\n",
    ],
)
def test_an_option_never_becomes_configuration(settings):
    with pytest.raises(InputError):
        compiled(settings)


def test_a_tcp_service_and_what_is_only_watched_have_no_file():
    files, found = compiled()
    assert sorted(files) == [f"nginx/{name}/nginx.conf" for name in ("orders", "rpc", "web")]
    assert "nginx.tcp" in codes(found)
    files, found = compiled(policy=POLICY.replace("version: 1", "version: 1\nmode: shadow"))
    assert files == {}
    assert "nginx.shadow" in codes(found)


def test_trap_return_runs_before_auth_request_so_no_proxying_location_has_one():
    for text in compiled()[0].values():
        found = locations(text)
        proxying = {
            name: body for name, body in found.items() if "http://application" in body or "grpc://" in body
        }
        assert "/" in proxying
        for body in proxying.values():
            assert "auth_request /.everyhop;" in body
            code = [line for line in body.splitlines() if not line.lstrip().startswith("#")]
            assert not any(word in line for line in code for word in ("return", "rewrite", "try_files"))
        others = {name for name in found if not name.startswith("@")} - set(proxying)
        assert others == {"= /.everyhop"}
        assert "internal;" in found["= /.everyhop"]


def test_trap_satisfy_any_lets_an_address_stand_for_the_answer():
    for text in compiled()[0].values():
        assert "satisfy" not in text
        assert text.count("auth_request            off;") == 1  # in the internal location alone


def test_trap_a_path_behind_the_address_would_forward_another_one():
    for text in compiled()[0].values():
        passes = re.findall(r"(?:proxy|grpc)_pass +(\S+);", text)
        assert set(passes) <= {"http://application", "grpc://application"} | {
            one for one in passes if one.startswith("http://everyhop/nginx/")
        }
        assert "merge_slashes          off;" in text


def test_trap_every_header_that_the_authorizer_believes_is_set_over_the_client_s():
    for text in compiled()[0].values():
        body = locations(text)["= /.everyhop"]
        for name in ("X-Original-Method", "X-Original-URI", "X-Client-Certificate", "X-Client-Address"):
            assert len(re.findall(rf"proxy_set_header +{name} +\$", body)) == 1


def test_a_certificate_is_demanded_and_only_tls_1_3_spoken():
    for text in compiled()[0].values():
        assert "ssl_verify_client      on;" in text
        assert "ssl_protocols          TLSv1.3;" in text
        assert "optional" not in text


def test_a_door_that_needs_what_nobody_holds_is_shut_in_the_engine_s_order():
    files, found = compiled()
    assert "nginx.resource" in codes(found)
    assert "nginx.shut" in {one.code for one in found.diagnostics}
    table = files["nginx/orders/nginx.conf"].partition("$everyhop_shut {")[2].partition("}\n\n")[0]
    lines = [line.strip() for line in table.splitlines() if '"' in line]
    assert lines == [
        r'"~^GET (?:\\/big\\/a\\.b)$" 0;',
        r'"~^POST (?:\\/big\\/a\\.b)$" 1;',
        r'"~^GET (?:\\/healthz)$" 0;',
        r'"~^GET (?:\\/live)$" 0;',
        r'"~^GET (?:\\/orders)$" 0;',
        r'"~^POST (?:/big/[^/]+)$" 1;',
    ]
    files, found = compiled(beside=("sdk",))
    assert "$everyhop_shut" not in files["nginx/orders/nginx.conf"]
    assert "nginx.resource" not in codes(found)


def test_upgrades_and_grpc_only_where_they_are_declared():
    files, _ = compiled()
    assert "$everyhop_upgrade" in files["nginx/orders/nginx.conf"]
    assert "$everyhop_upgrade" not in files["nginx/rpc/nginx.conf"]
    assert "= /shop.v1.Rpc/Get" in locations(files["nginx/rpc/nginx.conf"])
    assert "grpc_pass" not in files["nginx/orders/nginx.conf"]


def test_golden():
    check_golden("nginx")
