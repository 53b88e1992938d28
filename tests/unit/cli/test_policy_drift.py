# SPDX-License-Identifier: Apache-2.0
"""``everyhop policy drift``: exit codes and contracts, from files, from standard input and from a cluster."""

from __future__ import annotations

import base64
import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.support.api_server import PLURALS, ApiServer
from tests.support.receiver import make_pki

from everyhop.cli.__main__ import main
from everyhop.manifests import read_manifests
from everyhop.policy import parse_policy
from everyhop.targets import compile_policy

if TYPE_CHECKING:
    from pathlib import Path

POLICY = """\
version: 1
trust_domain: cluster.local
services:
  web: {}
  pay: {operations: {charge: POST /v1/payments}}
allow: [{from: web, to: pay, operations: [charge]}]
targets: {namespace: shop}
"""
BACKDOOR: dict[str, Any] = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "backdoor", "namespace": "shop"},
    "spec": {"rules": [{}]},
}
DENY = BACKDOOR | {"spec": {"action": "DENY", "rules": [{}]}}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "everyhop.yaml").write_text(POLICY, encoding="utf-8")
    (one,) = compile_policy(parse_policy({"p.yaml": POLICY.encode()}), ["istio"])
    (tmp_path / "k8s").mkdir()
    for file in one.files:
        (tmp_path / "k8s" / file.path.replace("/", "-")).write_bytes(file.content)
    return tmp_path


def run(place: Path, *arguments: str) -> int:
    return main(["policy", "drift", str(place / "everyhop.yaml"), "--target", "istio", *arguments])


@pytest.mark.parametrize(
    ("extra", "code"), [(None, 0), (DENY, 10), (BACKDOOR, 1)], ids=["sync", "drift", "widens"]
)
def test_exit_codes(
    place: Path, extra: dict[str, Any] | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    if extra is not None:
        (place / "k8s" / "z.yaml").write_text(yaml.safe_dump(extra), encoding="utf-8")
    assert run(place, "--manifests", str(place / "k8s")) == code
    shown = capsys.readouterr().out
    assert ("NOT in sync" in shown) == (code != 0)
    if code == 1:
        assert "WIDENS: " in shown
        assert "[istio.allow-all]" in shown
        assert "request: web: " in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("--manifests", "missing"),
        ("--kubeconfig", "missing"),
        ("--manifests", "k8s", "--context", "x"),
        ("--manifests", "empty.yaml"),
    ],
)
def test_input_that_is_wrong(
    place: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "empty.yaml").write_text("[1]", encoding="utf-8")
    flag, name, *rest = arguments
    assert run(place, flag, str(place / name), *rest) == 2
    capsys.readouterr()


def test_the_contract_from_standard_input(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"\n---\n".join(path.read_bytes() for path in sorted((place / "k8s").iterdir()))
    text += b"\n---\n" + yaml.safe_dump(BACKDOOR).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert run(place, "--manifests", "-", "-o", "json") == 1
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert (target["target"], target["in_sync"], target["widens"]) == ("istio", False, True)
    (found,) = target["findings"]
    assert found["code"] == "istio.allow-all"
    assert found["object"] == "AuthorizationPolicy shop/backdoor"
    assert found["file"] == "<stdin>"
    assert found["line"] > 1
    assert found["request"]["to"]["service"] == "web"


def test_a_cluster_is_read_and_left_as_it_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifests = read_manifests({path.name: path.read_bytes() for path in sorted((place / "k8s").iterdir())})
    PLURALS.update({"Sidecar": "sidecars", "DestinationRule": "destinationrules"})
    objects = [dict(one.document) for one in manifests]
    pki = make_pki(place, "127.0.0.1", label="api")
    server = ApiServer([*objects, BACKDOOR], pki.certificate, pki.key, token="t", page=1)  # a test's
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        "clusters": [
            {
                "name": "c",
                "cluster": {
                    "server": server.url,
                    "certificate-authority-data": base64.b64encode(pki.ca.read_bytes()).decode(),
                },
            }
        ],
        "users": [{"name": "c", "user": {"token": "t"}}],
    }
    (place / "kubeconfig").write_text(yaml.safe_dump(config), encoding="utf-8")
    try:
        assert run(place, "--kubeconfig", str(place / "kubeconfig"), "--context", "c", "-o", "json") == 1
        (target,) = json.loads(capsys.readouterr().out)["targets"]
        assert [found["code"] for found in target["findings"]] == ["istio.allow-all"]
        assert target["findings"][0]["file"].startswith(server.url)
        assert {method for method, _ in server.asked} == {"GET"}
    finally:
        server.close()
    assert run(place, "--kubeconfig", str(place / "kubeconfig")) == 4
    capsys.readouterr()
