# SPDX-License-Identifier: Apache-2.0
"""What is written into configuration files of proxies is read strictly: an option must not become configuration."""

import pytest

from everyhop.core.errors import InputError
from everyhop.policy import parse_policy
from everyhop.targets._standalone import (
    authorizer_of,
    plain_address,
    plain_path,
    port_option,
    upstream_of,
    upstream_warnings,
)
from everyhop.targets.intents import Intents
from everyhop.targets.view import View

POLICY = """
version: 1
trust_domain: shop.example
services:
  orders: {operations: {x: GET /}}
targets:
"""


def view(settings):
    return View(Intents(parse_policy({"everyhop.yaml": (POLICY + settings).encode()})), "envoy")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unix:",
        "unix:relative.sock",
        "unix:/a;b",
        "unix:/a{b}",
        "unix:/a$b",
        "unix:/a%20b",
        "host",
        ":80",
        "host:",
        "host:0",
        "host:65536",
        "host:8x",
        "host;return:80",
        "-host:80",
        "http://host:80",
        "host:\u0665",
    ],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InputError, match="is no address"):
        plain_address(text, "targets: envoy: authorizer")


@pytest.mark.parametrize("path", ["/etc/a;b", "/etc/{x}", "/etc/$x", "/etc/#x", "/etc/a*", "/etc/a%h"])
def test_a_path_that_a_configuration_would_read_as_its_own_is_refused(path):
    with pytest.raises(InputError, match="no part of plain paths"):
        plain_path(view(f"  envoy: {{certificates: '{path}'}}"), "certificates")


def test_there_is_no_port_above_the_highest():
    with pytest.raises(InputError, match="no port 65536"):
        port_option(view("  envoy: {listen_port: 65536}"), "listen_port")
    assert port_option(view("  envoy: {listen_port: 65535}"), "listen_port") == 65535


def test_an_application_elsewhere_is_warned_of():
    elsewhere = view("  services: {orders: {host: 'db.example:80'}}")
    (warning,) = upstream_warnings(elsewhere, elsewhere.intents.of("orders"))
    assert (warning.code, warning.is_error) == ("envoy.upstream", False)
    assert "db.example:80" in warning.message


@pytest.mark.parametrize("host", ["127.0.0.1:80", "localhost:80", "127.0.0.9:80"])
def test_an_application_beside_is_not(host):
    beside = view(f"  services: {{orders: {{host: '{host}'}}}}")
    assert not list(upstream_warnings(beside, beside.intents.of("orders")))


def test_addresses():
    socket = plain_address("unix:/run/a.sock", "x")
    assert (socket.socket, socket.is_name, socket.is_local) == ("/run/a.sock", False, True)
    name = plain_address("auth.example:9443", "x")
    assert (name.host, name.port, name.is_name, name.is_local) == ("auth.example", 9443, True, False)
    assert not plain_address("10.0.0.1:80", "x").is_name


def test_without_a_word_the_application_is_on_loopback_and_nobody_is_asked():
    plain = view("  services: {orders: {port: 8181}}")
    assert (upstream_of(plain.intents.of("orders")).host, upstream_of(plain.intents.of("orders")).port) == (
        "127.0.0.1",
        8181,
    )
    assert authorizer_of(plain) is None
