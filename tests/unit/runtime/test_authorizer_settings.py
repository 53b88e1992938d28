# SPDX-License-Identifier: Apache-2.0
"""``authorizers`` in the settings: refused with the reason, then read."""

import os

import pytest

from everyhop.control.asking import AskingProxy, CallerFrom
from everyhop.core.errors import SettingsError
from everyhop.runtime.authorizer_pool import socket_mode
from everyhop.runtime.settings import load_settings


def load(tmp_path, text, environ=None):
    path = tmp_path / "everyhop.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, environ or {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("authorizers = 33", "must be a list of tables"),
        ("authorizers = ['www-data']", "a table"),
        ("authorizers = [{uid = 33, servce = 'orders'}]", "did you mean 'service'"),
        ("authorizers = [{uid = 33}]", "service or services"),
        ("authorizers = [{uid = 33, service = 'a', services = ['b']}]", "service or services"),
        ("authorizers = [{uid = 33, services = []}]", "services a list"),
        ("authorizers = [{uid = 33, services = 'orders'}]", "services a list"),
        ("authorizers = [{uid = 33, service = ''}]", "service is a name"),
        ("authorizers = [{service = 'orders'}]", "user or uid"),
        ("authorizers = [{uid = 33, user = 'root', service = 'orders'}]", "user or uid"),
        ("authorizers = [{uid = -1, service = 'orders'}]", "number of a user"),
        ("authorizers = [{uid = true, service = 'orders'}]", "number of a user"),
        ("authorizers = [{uid = 4294967295, service = 'orders'}]", "number of a user"),
        ("authorizers = [{user = 'nobody-of-this-name', service = 'orders'}]", "no user"),
        ("authorizers = [{user = 7, service = 'orders'}]", "no user"),
        ("authorizers = [{uid = 1, service = 'a'}, {uid = 1, service = 'b'}]", "two entries"),
        ("authorizers = [{uid = 1, service = 'a', caller = 'header'}]", "principal or xfcc"),
        ("authorizer_workers = 0", "between 1 and 64"),
        ("authorizer_workers = 65", "between 1 and 64"),
    ],
)
def test_refuses(tmp_path, text, message):
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    assert message in f"{caught.value.message} {caught.value.hint}"


def test_a_variable_names_no_authorizers(tmp_path):
    with pytest.raises(SettingsError, match="list of tables"):
        load(tmp_path, "", {"EVERYHOP_AUTHORIZERS": "33"})


def test_reads(tmp_path):
    settings = load(
        tmp_path,
        "authorizers = [{user = 'root', service = 'orders'}, "
        "{uid = 33, services = ['a', 'b', 'a'], caller = 'xfcc'}]",
    )
    assert settings.authorizers == (
        AskingProxy(uid=0, services=("orders",)),
        AskingProxy(uid=33, services=("a", "b"), caller=CallerFrom.XFCC),
    )
    assert load(tmp_path, "").authorizers == ()


def test_the_sockets_are_the_owners_unless_another_user_is_named():
    own = AskingProxy(uid=os.getuid(), services=("orders",))
    assert socket_mode([own]) == 0o600
    assert socket_mode([own, AskingProxy(uid=os.getuid() + 4711, services=("orders",))]) == 0o666
