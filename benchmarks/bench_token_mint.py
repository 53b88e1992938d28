# SPDX-License-Identifier: Apache-2.0
"""Claim: the whole of minting an access token costs no more than a JOSE library needs to write one.

Ours is `TokenService.mint`: the policy's grant, the scope, a random name, the claims checked by the rules of the
verifier, the ES256 signature, and the issue noted for the audit log (which is written in batches; that time is
measured apart and added in a line of its own).  Peers in the same run get the finished claims and only encode and
sign them with the same key: `joserfc.jwt.encode`, `authlib.jose.jwt.encode` and PyJWT; the floor is the bare ECDSA
signature of OpenSSL over as many bytes.  Rounds alternate, the median counts, per second of CPU time of one core.
Every kind of token is verified by our verifier and by PyJWT before anything is measured.  For information: RS256.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import jwt as pyjwt
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import ECKey

from everyhop.authz import Grants
from everyhop.issuing import (
    IssuingSettings,
    MintRequest,
    PolicyView,
    SigningKeys,
    TokenPorts,
    TokenService,
)
from everyhop.issuing.material import open_private
from everyhop.jose import Algorithm
from everyhop.policy import parse_policy
from everyhop.providers.keystores import MemoryKeyStore
from everyhop.runtime.system import SystemClock, SystemEntropy
from everyhop.storage import open_storage
from everyhop.tokens import Expectation, StaticKeys, TokenVerifier, parse_jwks

BAR = 1.0  # of the rate of joserfc, which does less
ISSUER = "https://127.0.0.1:8443"
CALLER = "spiffe://bench.example/service/orders"
POLICY = b"""
version: 1
trust_domain: bench.example
services:
  orders: {workload: [{run: true}]}
  payments:
    workload: [{run: true}]
    operations: {charge: {route: POST /charges, token: operation}, list: {route: GET /charges, token: required}}
allow:
  - {from: orders, to: payments, operations: all}
"""
REQUEST = MintRequest(
    caller=CALLER, target="payments", operation="charge", x5t="A" * 43, scope=frozenset({"charge"})
)


def service_on(storage, algorithm):
    snapshot = parse_policy({"policy.yaml": POLICY})
    policy = PolicyView(snapshot, Grants(snapshot))
    settings = IssuingSettings(issuer=ISSUER, trust_domain="bench.example", algorithm=algorithm)
    keystore = MemoryKeyStore()
    keys = SigningKeys(store=storage.issuing, keystore=keystore, clock=SystemClock(), settings=settings)
    keys.start()
    service = TokenService(
        TokenPorts(
            keys=keys,
            store=storage.issuing,
            policy=lambda: policy,
            journal=storage.token_journal,
            clock=SystemClock(),
            entropy=SystemEntropy(),
        ),
        settings,
    )
    return service, open_private(keys.list_keys()[0], keystore)


def check(service, tokens):
    """Demand that both verifiers take every token."""
    jwks = service.truth().jwks
    ours = TokenVerifier(
        StaticKeys(parse_jwks(jwks)), issuer=ISSUER, trust_domain="bench.example", clock=SystemClock()
    )
    expected = Expectation(
        audience="payments", operation="charge", per_operation=True, peer=CALLER, x5t="A" * 43
    )
    (key,) = pyjwt.PyJWKSet.from_dict(json.loads(jwks)).keys
    for token in tokens:
        ours.access(token, expected)
        pyjwt.decode(token, key, [key.algorithm_name], audience="payments#charge", issuer=ISSUER)


def contenders(service, private):
    """Return what is measured, by name: functions without arguments that give a token, or a signature."""
    sample = service.mint(REQUEST).token
    claims = pyjwt.decode(sample, options={"verify_signature": False})
    header = pyjwt.get_unverified_header(sample)
    message, ecdsa = sample.rpartition(".")[0].encode(), ec.ECDSA(hashes.SHA256())
    joserfc_key = ECKey.import_key(private)
    calls = {
        "bare signature": lambda: private.sign(message, ecdsa),
        "everyhop": lambda: service.mint(REQUEST).token,
        "joserfc": lambda: joserfc_jwt.encode(header, claims, joserfc_key),
        "PyJWT": lambda: pyjwt.encode(claims, private, "ES256", headers=header),
    }
    with warnings.catch_warnings(record=True):  # it announces its successor, joserfc
        from authlib.jose import ECKey as AuthlibKey, jwt as authlib_jwt

        authlib_key = AuthlibKey.import_key(private)
        calls["Authlib"] = lambda: authlib_jwt.encode(header, claims, authlib_key).decode()
    check(service, [call() for name, call in calls.items() if name != "bare signature"])
    return calls


def cpu_rate(call, count):
    began = time.process_time()
    for _ in range(count):
        call()
    return count / (time.process_time() - began)


def durable_rate(call, *, threads, seconds=3.0):
    """Issue from some threads at once, each token on record before the next; return rate, median and p99 (ms)."""
    end = time.perf_counter() + seconds

    def issue(_):
        took = []
        while (began := time.perf_counter()) < end:
            call()
            took.append(time.perf_counter() - began)
        return took

    with ThreadPoolExecutor(threads) as pool:
        took = sorted(one for some in pool.map(issue, range(threads)) for one in some)
    return len(took) / seconds, 1e3 * took[len(took) // 2], 1e3 * took[len(took) * 99 // 100]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=2000)
    options = parser.parse_args(argv)
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("cryptography", "joserfc", "Authlib", "PyJWT")
    )
    print(f"  {platform.machine()}, CPython {platform.python_version()}, {versions}")
    print(
        f"  {backend.openssl_version_text()}; one thread, {options.rounds} rounds of {options.count},"
        " first apart as warm-up"
    )
    with tempfile.TemporaryDirectory() as directory:
        storage = open_storage(Path(directory) / "es256.db")
        calls = contenders(*service_on(storage, Algorithm.ES256))
        rounds, written = [], []
        for _ in range(options.rounds + 1):
            # Signed apart from its record: the commit is measured below.
            with storage.token_journal.together():
                rounds.append({name: cpu_rate(call, options.count) for name, call in calls.items()})
                began = time.process_time()
            written.append((options.count, time.process_time() - began))
        alone = durable_rate(calls["everyhop"], threads=1)
        at_once = durable_rate(calls["everyhop"], threads=16)
        storage.close()
        rs256 = open_storage(Path(directory) / "rs256.db")
        service, _ = service_on(rs256, Algorithm.RS256)
        with rs256.token_journal.together():
            check(service, [service.mint(REQUEST).token])
            rs256_rate = cpu_rate(lambda: service.mint(REQUEST), options.count // 2)
        rs256.close()
    rounds = rounds[1:]
    rates = {name: statistics.median(r[name] for r in rounds) for name in calls}
    for name, rate in rates.items():
        lowest = min(r[name] for r in rounds)
        print(f"  {name:<14} {rate:>9,.0f} /s of CPU   {1e6 / rate:6.1f} µs   lowest round {lowest:>9,.0f}")
    per_record = statistics.median(seconds / count for count, seconds in written if count)
    print(f"  a record in the audit log, written with others: {per_record * 1e6:.1f} µs of CPU")
    print(f"  everyhop with its record: {1 / (1 / rates['everyhop'] + per_record):,.0f} /s of CPU")
    for name, (rate, median, p99) in (("one thread", alone), ("16 threads", at_once)):
        print(
            f"  on record before it leaves, {name}: {rate:,.0f} /s, median {median:.2f} ms, p99 {p99:.2f} ms"
        )
    print(f"  everyhop with RS256 (2048): {rs256_rate:,.0f} /s of CPU")
    print(f"  everyhop is {rates['everyhop'] / rates['bare signature']:.2f} of the bare signature")
    ratio = statistics.median(r["everyhop"] / r["joserfc"] for r in rounds)
    met = ratio >= BAR
    print(f"  bar {'met' if met else 'MISSED'}: {ratio:.2f} of joserfc's rate, at least {BAR:.2f}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
