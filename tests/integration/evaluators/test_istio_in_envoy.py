# SPDX-License-Identifier: Apache-2.0
"""The third reading of Istio's own cases: a real Envoy with the filters that Istio's tests expect, and our evaluator on the policies.

Needs a checkout of istio/istio 1.30 or later, named by EVERYHOP_ISTIO.  Tokens are not in it: no filter here verifies any.
"""

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.support.istio_upstream import TARGET, Shape, shapes
from tests.support.rbac_envoy import RbacEnvoy

from everyhop.evaluators.istio import Istio
from everyhop.evaluators.model import Wire
from everyhop.manifests import read_manifests

pytestmark = pytest.mark.slow
REQUESTS = 150
PEERS = 6
PLACE = "pilot/pkg/security/authz/builder/testdata/http"
CASES = {
    "allow-full-rule": (),
    "allow-nil-rule": (),
    "allow-empty-rule": (),
    "deny-and-allow": (),
    "deny-empty-rule": (),
    "dry-run-mix": (),
    "multiple-policies": (),
    "simple-policy-multiple-td-aliases": ("td1", "cluster.local", "some-td"),
    "simple-policy-principal-with-wildcard": ("td1", "foobar"),
    "simple-policy-td-aliases": ("td1", "cluster.local"),
    "td-aliases-source-principal": ("new-td", "old-td", "some-trustdomain"),
    "trust-domains": (),
}
"""Cases that a filter chain alone decides, with the trust domains that upstream's test gives them."""


@pytest.fixture(scope="module")
def envoy(tmp_path_factory):
    named = os.environ.get("EVERYHOP_ISTIO", "")
    place = Path(named) / PLACE
    if not named or not place.is_dir():
        pytest.skip("EVERYHOP_ISTIO does not name a checkout of istio/istio")
    chains = [
        [yaml.safe_load(file.read_text())["typedConfig"] for file in sorted(place.glob(f"{name}-out*.yaml"))]
        for name in CASES
    ]
    with RbacEnvoy(tmp_path_factory.mktemp("envoy"), chains) as running:
        running.place = place
        yield running


@pytest.mark.parametrize("name", CASES)
def test_istio_envoy_and_we_decide_alike(envoy, name):
    chain = list(CASES).index(name)
    text = (envoy.place / f"{name}-in.yaml").read_bytes()
    policies = read_manifests({"in.yaml": text})
    rules = [rule for one in policies for rule in one.spec.get("rules") or ()]
    domain, *aliases = CASES[name] or ("cluster.local",)
    istio = Istio(policies, trust_domain=domain, aliases=aliases, filter_metadata={})
    rng = random.Random(name)
    made = list(shapes(rules, ("cluster.local", "other", domain, *aliases), rng, REQUESTS))
    peers = [None, *dict.fromkeys(one.peer for one in made if one.peer)][: PEERS + 1]
    answers = []
    for shape in made:
        peer = shape.peer if shape.peer in peers else rng.choice(peers)
        headers = {
            ":authority": shape.host,
            **{key: value.strip() for key, value in shape.headers.items() if value.strip()},
        }
        method = (
            shape.method if shape.method in {"GET", "POST", "PUT", "DELETE"} else "GET"
        )  # HTTP/1.1 refuses others
        seen = envoy.attempt(chain, peer, method, shape.path, headers)
        asked = Shape(
            peer=peer,
            method=method,
            path=shape.path,
            host=shape.host,
            port=seen.port,
            ip="127.0.0.1",
            destination="127.0.0.1",
            sni=seen.server_name or None,
            headers={key: value for key, value in headers.items() if key != ":authority"},
        ).request(Wire.HTTP)
        outcome = istio.evaluate(replace(asked, target=replace(TARGET, ip="127.0.0.1")))
        status = envoy.status(chain, peer, method, shape.path, headers)
        assert status == (200 if outcome.allowed else 403), (asked, outcome)
        answers.append(status)
    print(f"{name}: {len(answers)} requests, {answers.count(200)} of them passed")
