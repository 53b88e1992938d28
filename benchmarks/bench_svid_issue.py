# SPDX-License-Identifier: Apache-2.0
"""Claim: one core issues at least 2,500 X509-SVIDs a second: request checked, certificate signed.

A full issue is what the server does for one request: parse the CSR, verify its signature, build the leaf, sign it.
The peer, in the same run, is the bare cost of the two signature operations in it (one ECDSA P-256 verification, one
signature, of OpenSSL through `cryptography`): nothing that issues can be faster.  Rounds alternate and the median of
the rates counts, per second of CPU time, so a busy neighbour disturbs little.  Every tenth certificate is validated as
an X509-SVID against the bundle.  Beside that, for information: the same through the service with its audit record
committed to SQLite before the answer, in wall-clock time, alone and from eight threads.
"""

import argparse
import platform
import secrets
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from everyhop.authority import Authority
from everyhop.providers.keystores import MemoryKeyStore
from everyhop.runtime.system import SystemClock, SystemEntropy
from everyhop.spiffe import SpiffeId, TrustDomain
from everyhop.spiffe.bundle import Bundle
from everyhop.spiffe.x509_svid import validate_x509_svid
from everyhop.storage import open_storage
from everyhop.x509 import (
    CaProfile,
    Issuer,
    LeafProfile,
    build_csr,
    generate_private_key,
    new_serial,
    sign_ca,
    verify_csr,
)

BAR = 2500.0
DOMAIN = TrustDomain.parse("bench.example")
ID = SpiffeId.parse("spiffe://bench.example/service/orders")
REQUESTS = 64  # different keys, so nothing can be remembered
MESSAGE = secrets.token_bytes(400)  # about the size of what is signed in a leaf


def cpu_rate(call, count):
    began = time.process_time()
    for number in range(count):
        call(number)
    return count / (time.process_time() - began)


def wall_rate(call, count, threads):
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(call, range(count)))
        return count / (time.perf_counter() - began)


def contenders():
    """Return what is measured, by name, each a function of the number of the round."""
    system, now = SystemEntropy(), datetime.now(UTC)
    key = generate_private_key()
    profile = CaProfile(uri=str(DOMAIN.id), serial=1, not_before=now, not_after=now + timedelta(days=1))
    issuer = Issuer(sign_ca(profile, key), key)
    requests = [build_csr(generate_private_key()) for _ in range(REQUESTS)]
    algorithm = ec.ECDSA(hashes.SHA256())
    signature, public = key.sign(MESSAGE, algorithm), key.public_key()
    bundle = Bundle(trust_domain=DOMAIN, x509_authorities=(issuer.certificate_der,), jwt_authorities={})

    def leaf(public_key):
        profile = LeafProfile(
            uri=str(ID),
            public_key=public_key,
            serial=new_serial(system),
            not_before=now,
            not_after=now + timedelta(hours=1),
        )
        return issuer.sign_leaf(profile)

    def issue(number):
        return leaf(verify_csr(requests[number % REQUESTS]))

    for number in range(0, REQUESTS, 10):
        made = validate_x509_svid([issue(number)], bundle, datetime.now(UTC))
        assert made.spiffe_id == ID
    return {
        "signature": lambda _: key.sign(MESSAGE, algorithm),
        "verification": lambda _: public.verify(signature, MESSAGE, algorithm),
        "CSR check": lambda number: verify_csr(requests[number % REQUESTS]),
        "leaf": lambda _: leaf(public),
        "full issue": issue,
    }


def durable(count):
    """Return (alone, eight threads): issues a second with the record committed, by the clock on the wall."""
    with tempfile.TemporaryDirectory() as directory:
        storage = open_storage(Path(directory) / "everyhop.db")
        authority = Authority(
            trust_domain=DOMAIN,
            store=storage.authorities,
            keystore=MemoryKeyStore(),
            clock=SystemClock(),
            entropy=SystemEntropy(),
        )
        authority.start()
        request = build_csr(generate_private_key())
        rates = [wall_rate(lambda _: authority.issue_x509(ID, request), count, n) for n in (1, 8)]
        storage.close()
    return rates


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args(argv)
    print(
        f"  {platform.machine()}, CPython {platform.python_version()}, cryptography {version('cryptography')},"
        f" {backend.openssl_version_text()}; one thread, {options.rounds} rounds of {options.count}, first apart as warm-up"
    )
    calls = contenders()
    rounds = [
        {name: cpu_rate(call, options.count) for name, call in calls.items()}
        for _ in range(options.rounds + 1)
    ][1:]
    rates = {name: statistics.median(r[name] for r in rounds) for name in calls}
    for name, rate in rates.items():
        print(f"  {name:<14} {rate:>9,.0f} /s of CPU   lowest round {min(r[name] for r in rounds):>9,.0f}")
    floor = statistics.median(1 / (1 / r["signature"] + 1 / r["verification"]) for r in rounds)
    print(f"  full issue is {rates['full issue'] / rates['signature']:.2f} of the raw signature rate")
    print(
        f"  full issue is {rates['full issue'] / floor:.2f} of a verification and a signature, the least it can cost"
    )
    alone, together = durable(options.count // 2)
    print(
        f"  with its record committed: {alone:,.0f} /s alone, {together:,.0f} /s from 8 threads (wall clock)"
    )
    met = rates["full issue"] >= BAR
    print(f"  bar {'met' if met else 'MISSED'}: {rates['full issue']:,.0f} /s, at least {BAR:,.0f}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
