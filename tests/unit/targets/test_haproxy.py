# SPDX-License-Identifier: Apache-2.0
"""haproxy as text: what is not expressly allowed is refused.  What it does is tested with the real one."""

import re

import pytest
from tests.support.golden_proxies import check_golden
from tests.unit.targets.test_nginx import POLICY

from everyhop.core.errors import InputError
from everyhop.policy import parse_policy
from everyhop.targets import compile_policy

ASKED = "  haproxy: {authorizer: 'unix:/run/a.sock'}\n"


def compiled(settings=ASKED, policy=POLICY, beside=()):
    snapshot = parse_policy({"everyhop.yaml": (policy + settings).encode()})
    (found,) = compile_policy(snapshot, ["haproxy"], beside=beside)
    return {file.path: file.content.decode() for file in found.files}, found


def codes(found):
    return {one.code for one in found.diagnostics if one.is_error}


def statements(text):
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def test_without_an_authorizer_there_is_no_file():
    files, found = compiled("  haproxy: {}\n")
    assert files == {}
    assert {"haproxy.authorizer", "haproxy.identity", "haproxy.route"} <= codes(found)


def test_an_authorizer_on_tcp_is_refused_because_haproxy_cannot_tell_who_answers():
    files, found = compiled("  haproxy: {authorizer: 'auth.example:9443'}\n")
    assert files == {}
    assert "haproxy.authorizer" in codes(found)


@pytest.mark.parametrize(
    "settings",
    [
        "  haproxy: {authorizer: 'unix:/run/a;b'}\n",
        "  haproxy: {authorizer: 'unix:/run/a.sock', directory: '/etc/$x'}\n",
        "  haproxy: {authorizer: 'unix:/run/a.sock', certificates: '/etc/#x'}\n",
    ],
)
def test_an_option_never_becomes_configuration(settings):
    with pytest.raises(InputError):
        compiled(settings)


def test_a_tcp_service_and_what_is_only_watched_have_no_file():
    files, found = compiled()
    assert not [path for path in files if "/db/" in path]
    assert "haproxy.tcp" in codes(found)
    files, _ = compiled(policy=POLICY.replace("version: 1", "version: 1\nmode: shadow"))
    assert files == {}


def test_whatever_the_action_did_not_allow_is_refused_right_behind_it():
    for path, text in compiled()[0].items():
        if path.endswith(".cfg"):
            lines = statements(text)
            at = lines.index("http-request lua.everyhop")
            assert (
                lines[at + 1]
                == "http-request deny deny_status 503 unless { var(txn.everyhop) -m str allowed }"
            )
            assert "verify required" in text
            assert "ssl-min-ver TLSv1.3" in text
            assert not any(word in text for word in ("http-request allow", "http-request return", "redirect"))


def test_what_a_client_claims_is_removed_before_anybody_is_asked():
    for path, text in compiled()[0].items():
        if path.endswith(".cfg"):
            lines = statements(text)
            at = lines.index("http-request lua.everyhop")
            removed = {line.split()[2] for line in lines[:at] if line.startswith("http-request del-header")}
            assert {
                "x-everyhop-",
                "x-forwarded-",
                "x-original-",
                "x-client-",
                "x-http-method-override",
            } <= removed


def test_the_program_allows_in_one_place_and_only_after_200():
    text = compiled()[0]["haproxy/orders/everyhop.lua"]
    assert text.count('"allowed"') == 1
    assert text.index('if status ~= "200" then') < text.index('"allowed"')
    assert text.index("return refuse(txn, meant, body, more)") < text.index('"allowed"')


def test_a_door_that_needs_what_nobody_holds_is_shut_in_the_engine_s_order():
    files, found = compiled()
    assert "haproxy.resource" in codes(found)
    lines = re.findall(
        r"str\((\w+)\).*method -m reg -- ('[^']+') \} \{ path -m reg -- ('[^']+')",
        files["haproxy/orders/haproxy.cfg"],
    )
    assert lines == [
        ("open", "'^GET$'", r"'^(?:/big/a\.b)$'"),
        ("shut", "'^POST$'", r"'^(?:/big/a\.b)$'"),
        ("open", "'^GET$'", "'^(?:/healthz)$'"),
        ("open", "'^GET$'", "'^(?:/live)$'"),
        ("open", "'^GET$'", "'^(?:/orders)$'"),
        ("shut", "'^POST$'", "'^(?:/big/[^/]+)$'"),
    ]
    assert "everyhop_door" not in compiled(beside=("sdk",))[0]["haproxy/orders/haproxy.cfg"]


def test_a_quote_in_a_path_ends_nothing():
    files, _ = compiled(policy=POLICY.replace("GET /big/a.b", "GET /it's"))
    assert r"'^(?:/it\x27s)$'" in files["haproxy/orders/haproxy.cfg"]


def test_golden():
    check_golden("haproxy")
