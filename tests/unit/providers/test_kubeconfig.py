# SPDX-License-Identifier: Apache-2.0
"""A kubeconfig: what is used of it, and what is refused by its name."""

import base64

import pytest
import yaml

from everyhop.core.errors import InputError
from everyhop.providers.kubeconfig import read_kubeconfig


def config(user=None, cluster=None, **further):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "prod",
        "contexts": [{"name": "prod", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443/"} | (cluster or {})}],
        "users": [{"name": "u", "user": user or {}}],
    } | further


@pytest.fixture
def read(tmp_path):
    def run(document, context=None):
        path = tmp_path / "config"
        path.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
        return read_kubeconfig(path, context)

    run.directory = tmp_path
    return run


@pytest.mark.parametrize(
    ("user", "word"),
    [
        ({"exec": {"command": "aws"}}, "exec is refused"),
        ({"auth-provider": {"name": "gcp"}}, "auth-provider is refused"),
        ({"username": "a", "password": "b"}, "username is refused"),
        ({"token": "t", "as": "admin"}, "as is refused"),
        ({"client-certificate-data": "AAAA"}, "go together"),
        ({"client-certificate-data": "?", "client-key-data": "AAAA"}, "no base64"),
        ({"client-certificate": "missing.pem", "client-key": "missing.key"}, "cannot read"),
        ({"token": "two words"}, "none that can be sent"),
        ({"token": "line\nbreak"}, "none that can be sent"),
        ({"token": 7}, "none that can be sent"),
    ],
)
def test_credentials_that_are_refused(read, user, word):
    with pytest.raises(InputError, match=word):
        read(config(user))


@pytest.mark.parametrize(
    ("cluster", "word"),
    [
        ({"server": "http://10.0.0.1"}, "no https URL"),
        ({"server": "https://me:secret@10.0.0.1"}, "no https URL"),
        ({"server": None}, "no https URL"),
        ({"insecure-skip-tls-verify": True}, "insecure-skip-tls-verify is refused"),
        ({"proxy-url": "http://proxy"}, "proxy-url is refused"),
    ],
)
def test_clusters_that_are_refused(read, cluster, word):
    with pytest.raises(InputError, match=word):
        read(config({"token": "t"}, cluster))


@pytest.mark.parametrize(
    ("document", "context", "word"),
    [
        ("[", None, "no YAML"),
        ("text", None, "no kubeconfig"),
        (config(**{"current-context": ""}), None, "no current context"),
        (config(), "other", "no context 'other'"),
        (config(clusters=[]), None, "no cluster 'c'"),
        (config(users=None), None, "no user 'u'"),
        ("x" * (4 * 1024 * 1024 + 1), None, "more than"),
    ],
    ids=["syntax", "kind", "none", "context", "cluster", "user", "size"],
)
def test_files_that_are_refused(read, document, context, word):
    with pytest.raises(InputError, match=word):
        read(document, context)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_kubeconfig(tmp_path / "none")


def test_what_is_used(read):
    (read.directory / "token").write_text("secret\n", encoding="utf-8")
    (read.directory / "ca.pem").write_text("CA", encoding="utf-8")
    user = {
        "tokenFile": "token",
        "client-certificate-data": base64.b64encode(b"CERT").decode(),
        "client-key-data": base64.b64encode(b"KEY").decode(),
    }
    access = read(config(user, {"certificate-authority": "ca.pem", "tls-server-name": "kubernetes"}))
    assert (access.server, access.authorities, access.server_name) == (
        "https://10.0.0.1:6443",
        b"CA",
        "kubernetes",
    )
    assert access.certificate == b"CERT"
    assert access.key.reveal() == b"KEY"
    assert access.token.reveal() == b"secret"
    assert "secret" not in repr(access)
    assert "KEY" not in repr(access)


def test_another_context(read):
    further = [{"name": "dev", "context": {"cluster": "c", "user": "u"}}]
    access = read(config({"token": "t"}, contexts=further), "dev")
    assert access.token.reveal() == b"t"
