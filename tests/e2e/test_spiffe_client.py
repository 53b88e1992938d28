# SPDX-License-Identifier: Apache-2.0
"""Another implementation of the SPIFFE Workload API against the whole system: fetch, watch, JWT, withdrawal."""

from __future__ import annotations

import json
import sys

from trust_domain import TrustDomainUnderTest, trust_domain, wait_until

FETCH = """
import json
from spiffe import WorkloadApiClient
client = WorkloadApiClient()
context = client.fetch_x509_context()
svid = context.default_svid
jwt = client.fetch_jwt_svid(audience={"payments"})
checked = client.validate_jwt_svid(jwt.token, audience="payments")
print(json.dumps({
    "id": str(svid.spiffe_id), "bundle": len(context.x509_bundle_set.bundles),
    "jwt": str(jwt.spiffe_id), "checked": str(checked.spiffe_id),
}))
"""

WATCH = """
import sys, time
from spiffe import X509Source
source = X509Source()
seen = []
deadline = time.monotonic() + 60
while len(seen) < 3 and time.monotonic() < deadline:
    serial = source.svid.leaf.serial_number
    if serial not in seen:
        seen.append(serial)
        print(len(seen), len(source.get_bundle_for_trust_domain(source.svid.spiffe_id.trust_domain).x509_authorities), flush=True)
    time.sleep(0.02)
source.close()
sys.exit(0 if len(seen) == 3 else 1)
"""

NOBODY = """
from spiffe import WorkloadApiClient
try:
    WorkloadApiClient().fetch_x509_svid()
    print("GOT ONE")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_fetch_x509_and_jwt(domain: TrustDomainUnderTest) -> None:
    done = domain.once("storefront", sys.executable, "-c", FETCH)
    storefront = "spiffe://shop.example/service/storefront"
    assert json.loads(done.stdout) == {
        "id": storefront,
        "bundle": 1,
        "jwt": storefront,
        "checked": storefront,
    }


def test_watch_through_two_rotations() -> None:
    with trust_domain() as own:
        process = own.run("storefront", sys.executable, "-c", WATCH, wait=False)
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["1", "1"]
        own.cli("keys", "rotate")
        assert process.stdout.readline().split()[0] == "2"
        own.cli("keys", "rotate")
        line = process.stdout.readline().split()
        assert line[0] == "3"
        assert int(line[1]) >= 2
        assert process.wait(20) == 0


def test_a_process_outside_any_launch_gets_nothing_and_the_log_says_why(domain: TrustDomainUnderTest) -> None:
    import subprocess

    environment = {**domain.environment, "SPIFFE_ENDPOINT_SOCKET": f"unix://{domain.state}/run/workload.sock"}
    done = subprocess.run(
        [sys.executable, "-c", NOBODY],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "GOT ONE" not in done.stdout
    wait_until(lambda: "no identity for pid" in domain.log("agent"), what="the reason in the agent's log")


def test_unix_selectors_give_an_identity_without_run() -> None:
    import os
    import subprocess

    policy = f"""\
version: 1
trust_domain: shop.example
services:
  batch: {{workload: [{{unix: {{uid: {os.getuid()}, path: {os.path.realpath(sys.executable)}}}}}]}}
"""
    with trust_domain(policy) as own:
        environment = {**own.environment, "SPIFFE_ENDPOINT_SOCKET": f"unix://{own.state}/run/workload.sock"}
        done = subprocess.run(
            [sys.executable, "-c", FETCH],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert json.loads(done.stdout)["id"] == "spiffe://shop.example/service/batch", done.stderr
        before = own.status()["snapshot"]
        own.edit_policy("path: ", "path: /elsewhere")
        own.wait_applied(before)
        done = subprocess.run(
            [sys.executable, "-c", NOBODY],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert "GOT ONE" not in done.stdout
