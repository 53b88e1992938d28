# SPDX-License-Identifier: Apache-2.0
"""Clients from outside: API keys and users of an OpenID provider, at the edge and down the chain."""

from __future__ import annotations

import datetime as dt
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from oidc_issuer import OidcIssuer
from trust_domain import TrustDomainUnderTest, trust_domain, wait_until

POLICY = """\
version: 1
trust_domain: shop.example
users:
  issuers: [{issuer: '@ISSUER@', audience: shop}]
services:
  storefront:
    workload: [{run: true}]
    operations: {browse: GET /browse, plain: GET /plain, mine: GET /mine, hidden: GET /hidden}
    probes: [GET /healthz]
  orders:
    workload: [{run: true}]
    operations: {list: GET /orders, mine: GET /mine}
allow:
  - {from: outside, to: storefront, operations: [browse], user: optional}
  - {from: outside, to: storefront, operations: [plain]}
  - {from: outside, to: storefront, operations: [mine], user: required}
  - {from: storefront, to: orders, operations: [list]}
  - {from: storefront, to: orders, operations: [mine], user: required}
"""


@pytest.fixture(scope="module")
def issuer() -> Iterator[OidcIssuer]:
    made = OidcIssuer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def domain(issuer) -> Iterator[TrustDomainUnderTest]:
    with trust_domain(POLICY.replace("@ISSUER@", issuer.url)) as made:
        made.serve("storefront", options=("--edge", "0"))
        made.serve("orders")
        yield made


def user_token(issuer: OidcIssuer, **claims: Any) -> str:
    now = int(time.time())
    return issuer.token(**{"iat": now, "exp": now + 600, **claims})


def outside(
    domain: TrustDomainUnderTest, path: str, *tokens: str, method: str = "GET", **headers: str
) -> httpx.Response:
    """Call as a client that has nothing of the trust domain but its bundle."""
    bundle = domain.root / "bundle.pem"
    if not bundle.exists():
        domain.cli("svid", "fetch", "storefront", "--write", str(domain.root / "id"))
        bundle.write_bytes((domain.root / "id" / "bundle.pem").read_bytes())
    context = ssl.create_default_context(cafile=str(bundle))
    context.check_hostname = False  # it shows the service's SVID
    fields = [("authorization", f"Bearer {token}") for token in tokens]
    fields += [(name.replace("_", "-"), value) for name, value in headers.items()]
    place = domain.ready("storefront")[0]["edge"]
    with httpx.Client(verify=context, trust_env=False) as client:
        return client.request(method, f"https://{place}{path}", headers=fields)


def refused(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert body.keys() <= {"type", "title", "status", "code", "decision"}
    return response.status_code, body["code"]


def seen(response: httpx.Response) -> dict[str, str]:
    assert response.status_code == 200, response.text
    return dict(response.json()["headers"])


def key_for(domain: TrustDomainUnderTest, *scopes: str) -> str:
    arguments = [part for scope in scopes for part in ("--scope", scope)]
    return domain.cli("apikey", "create", "--owner", "acme", *arguments).strip()


# -- refused


def test_nothing_passes_without_a_credential(domain):
    for path in ("/browse", "/plain", "/mine"):
        assert refused(outside(domain, path)) == (401, "MISSING_TOKEN")
        assert refused(outside(domain, f"{path}?access_token=x")) in {
            (401, "MISSING_TOKEN"),
            (401, "TOKEN_MALFORMED"),
        }


def test_what_is_not_for_the_outside(domain, issuer):
    token = user_token(issuer)
    assert refused(outside(domain, "/hidden", token)) == (403, "ACCESS_DENIED")
    assert refused(outside(domain, "/healthz", token)) == (403, "ACCESS_DENIED")
    assert refused(outside(domain, "/browse", token, method="POST")) == (403, "ACCESS_DENIED")
    assert refused(outside(domain, "//browse", token)) == (400, "AMBIGUOUS_PATH")


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://elsewhere.example"},
        {"aud": "another"},
        {"exp": 1},
        {"exp": None},
        {"sub": None},
        {"sub": ""},
        {"header": {"kid": "nobody"}},
    ],
)
def test_tokens_of_users_that_are_not_believed(domain, issuer, claims):
    response = outside(domain, "/browse", user_token(issuer, **claims))
    assert response.status_code == 401, response.text
    assert response.json()["code"].startswith(("TOKEN_", "UNKNOWN_", "UNAUTHORIZED_", "AUDIENCE_"))
    assert response.headers["www-authenticate"].startswith("Bearer ")


def test_a_token_of_the_trust_domain_is_no_credential_outside(domain):
    answer = domain.cli("token", "mint", "--from", "storefront", "--for", "orders").strip()
    assert outside(domain, "/browse", answer).status_code == 401


def test_two_credentials_are_one_too_many(domain, issuer):
    token = user_token(issuer)
    assert refused(outside(domain, "/browse", token, token)) == (401, "TOKEN_MALFORMED")


def test_a_key_opens_what_it_is_for_and_is_nobody(domain):
    key = key_for(domain, "storefront.browse", "storefront.mine")
    assert outside(domain, "/browse", key).status_code == 200
    assert refused(outside(domain, "/plain", key)) == (403, "INSUFFICIENT_SCOPE")
    assert refused(outside(domain, "/mine", key)) == (401, "USER_REQUIRED")


def test_a_revoked_key_is_refused_a_moment_later(domain):
    key = key_for(domain, "storefront.browse")
    assert outside(domain, "/browse", key).status_code == 200
    domain.cli("apikey", "revoke", key.split("_")[3])
    wait_until(lambda: outside(domain, "/browse", key).status_code == 401, what="the revocation is in force")


# -- let in


def test_a_user_reaches_the_application_with_roles(domain, issuer):
    headers = seen(
        outside(domain, "/mine", user_token(issuer, roles=["clerk", "b,c"], auth_time=1000, amr=["otp"]))
    )
    assert headers["x-everyhop-caller"] == "outside"
    assert headers["x-everyhop-user"] == "alice"
    assert headers["x-everyhop-user-roles"] == "b%2Cc,clerk"
    assert "authorization" not in headers
    inspected = domain.json("token", "inspect", str(_file(domain, headers["txn-token"])))
    context = inspected["claims"]["tctx"]
    assert context["roles"] == ["b,c", "clerk"]
    assert (context["idp"], context["kind"], context["auth_time"]) == (issuer.url, "user", 1000)


def test_where_no_user_is_taken_none_arrives(domain, issuer):
    headers = seen(outside(domain, "/plain", user_token(issuer)))
    assert not {"txn-token", "authorization", "x-everyhop-user"} & headers.keys()


def test_nothing_forged_arrives(domain, issuer):
    forged = {
        "x_everyhop_caller": "spiffe://shop.example/service/orders",
        "x_everyhop_user": "mallory",
        "x_everyhop_user_roles": "admin",
        "txn_token": "forged",
        "x_forwarded_client_cert": "URI=spiffe://shop.example/service/orders",
    }
    headers = seen(outside(domain, "/mine", user_token(issuer), **forged))
    assert headers["x-everyhop-user"] == "alice"
    assert headers["x-everyhop-user-roles"] == "clerk"
    assert "mallory" not in str(headers)
    assert headers["txn-token"] != "forged"


def test_the_user_goes_on_to_the_next_service(domain, issuer):
    token = seen(outside(domain, "/mine", user_token(issuer)))["txn-token"]

    def ask(*headers: str, path: str = "/mine") -> str:
        command = ["curl", "-s", *(part for h in headers for part in ("-H", h)), f"http://orders{path}"]
        return domain.once("storefront", *command).stdout

    assert '["x-everyhop-user", "alice"]' in ask(f"Txn-Token: {token}")
    assert '"code":"USER_REQUIRED"' in ask()
    head, payload, signature = token.split(".")
    other = ("B" if signature[0] == "A" else "A") + signature[1:]
    assert '"code":"TOKEN_INVALID"' in ask(f"Txn-Token: {head}.{payload}.{other}")
    assert '"code":"TOKEN_MALFORMED"' in ask(f"Txn-Token: {token}", f"Txn-Token: {token}")
    assert "txn-token" not in ask(f"Txn-Token: {token}", path="/orders")


def test_the_records_name_the_edge_and_the_user(domain, issuer):
    response = outside(domain, "/mine", user_token(issuer, sub="records-me"))
    decision = dict(response.json()["headers"])["x-everyhop-decision"]
    record: dict[str, Any] = {}

    def there() -> bool:
        found = [r for r in domain.records(service="storefront") if r["id"] == decision]
        record.update(found[0] if found else {})
        return bool(found)

    wait_until(there, what="the record is there")
    assert (record["point"], record["caller"], record["decision"]) == ("edge", "outside", "allow")
    assert "records-me" in str(record)


def test_an_edge_with_the_operators_own_certificate(domain, issuer):
    directory = domain.root / "cert"
    _self_signed(directory, "shop.test")
    before = domain.ready("storefront")
    options = (
        "--edge",
        "localhost:0",
        "--edge-certificate",
        f"{directory}/c.pem",
        "--edge-key",
        f"{directory}/k.pem",
    )
    process = domain.serve("storefront", options=options)
    try:
        mine = next(i for i in domain.ready("storefront") if i not in before)
        context = ssl.create_default_context(cafile=f"{directory}/c.pem")
        with httpx.Client(verify=context, trust_env=False) as client:
            port = mine["edge"].rpartition(":")[2]
            url = f"https://localhost:{port}/browse"
            answer = client.get(
                url, headers={"host": "shop.test", "authorization": f"Bearer {user_token(issuer)}"}
            )
        assert answer.status_code == 200
    finally:
        domain.stop(process)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--edge", "shop.test:8443"), "is not [HOST:]PORT"),
        (("--edge", "70000"), "is not [HOST:]PORT"),
        (("--edge", "192.0.2.1:8443"), "cannot be bound here"),
        (("--edge", "0", "--edge-key", "/etc/hostname"), "together"),
        (("--edge-certificate", "/x", "--edge-key", "/y"), "together"),
        (("--edge", "0", "--edge-certificate", "/x", "--edge-key", "/y"), "there is no file"),
    ],
)
def test_an_edge_that_cannot_be(domain, options, message):
    process = domain.run("storefront", "true", wait=False, options=options)
    assert process.wait(30) != 0
    assert message in (domain.root / f"storefront-{len(domain.runs) - 1}.err").read_text()


def _file(domain: TrustDomainUnderTest, text: str) -> Path:
    path = domain.root / "token.txt"
    path.write_text(text)
    return path


def _self_signed(directory: Path, name: str) -> None:
    directory.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.DNSName("localhost")])
    certificate = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=subject, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "c.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "k.pem").write_bytes(pem)
    (directory / "k.pem").chmod(0o600)
