# SPDX-License-Identifier: Apache-2.0
"""cert-manager: no certificate without an issuer, and none with another name than the SPIFFE ID."""

import pytest
from tests.support.crds import Definitions, objects_of
from tests.support.spire_world import codes, compiled, file_of

ISSUER = "  cert-manager: {issuer: mesh}\n"
TD = "spiffe://shop.example"


def certificates(options=ISSUER):
    """Return the Certificates by namespace and name."""
    found = objects_of(one.content for one in compiled("cert-manager", options).files)
    return {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in found}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("", "cert-manager.issuer"),
        ("  cert-manager: {issuer: mesh, duration: 30m}\n", "cert-manager.duration"),
    ],
)
def test_what_cannot_be_signed_is_refused(options, code):
    found = compiled("cert-manager", options)
    assert (found.failed, found.files, codes(found)) == (True, (), [code])


def test_each_service_in_the_cluster_has_its_id_and_nothing_else():
    found = certificates()
    assert {place: one["spec"]["uris"] for place, one in found.items()} == {
        ("billing", "svid-payments"): [f"{TD}/billing/payments"],
        ("shop", "svid-checkout"): [f"{TD}/service/checkout"],
    }
    for one in found.values():
        spec = one["spec"]
        assert "dnsNames" not in spec
        assert "commonName" not in spec
        assert spec["isCA"] is False
        assert spec["privateKey"]["rotationPolicy"] == "Always"
        assert spec["usages"] == ["digital signature", "server auth", "client auth"]
        assert (spec["duration"], spec["renewBefore"]) == ("24h0m0s", "8h0m0s")
        assert spec["issuerRef"] == {"name": "mesh", "kind": "ClusterIssuer", "group": "cert-manager.io"}


def test_what_the_secret_means_is_said_and_processes_of_hosts_have_none():
    found = compiled("cert-manager", ISSUER)
    assert (found.failed, codes(found)) == (False, ["cert-manager.approval", "cert-manager.hosts"])


def test_names_of_dns_are_written_when_asked_for():
    options = "  cert-manager: {issuer: own, issuer_kind: Issuer, dns: true, duration: 90m}\n"
    spec = certificates(options)["shop", "svid-checkout"]["spec"]
    assert spec["dnsNames"] == ["checkout.shop.svc.cluster.local"]
    assert (spec["duration"], spec["renewBefore"], spec["issuerRef"]["kind"]) == (
        "1h30m0s",
        "30m0s",
        "Issuer",
    )


def test_every_certificate_is_one_that_the_api_server_takes(shared_material):
    definitions = Definitions(shared_material / "schemas", "cert-manager")
    for one in certificates("  cert-manager: {issuer: mesh, dns: true}\n").values():
        assert definitions.problem(one) is None


def test_a_rule_is_found_by_its_comment():
    text = file_of(compiled("cert-manager", ISSUER), "cert-manager/shop.yaml")
    assert "# checkout at everyhop.yaml:5\n" in text
