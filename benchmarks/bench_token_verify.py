# SPDX-License-Identifier: Apache-2.0
"""Claim: a first-seen ES256 token costs at most 1.25 times the bare signature check, a seen one at most 3 µs.

One issuer, one key of each algorithm, 200 different tokens of ten claims (RFC 9068 with cnf and txn), the key
parsed once for everybody, issuer, audience and times checked by everybody.  Peers in the same rounds: the bare
check of `cryptography` (the signature decoded beforehand), PyJWT, joserfc, Authlib.  `everyhop`, which the bar is
for, is the whole call of a service: profile, key set, binding, peer, scope, revocations, and keeping the token; a
fresh verifier each round, so that every token is a first one.  `verify` is the part of it that the peers do.  Minting is measured against the bare signature.

Figures are process CPU time; rounds are interleaved, the first ones are warm-up; a sample is a batch of calls.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
import warnings
from datetime import UTC, datetime
from importlib.metadata import version

import joserfc.jwk
import joserfc.jwt
import jwt as pyjwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from everyhop.jose import decode_base64url
from everyhop.tokens import (
    Expectation,
    KeySet,
    PinnedKey,
    StaticKeys,
    TokenMint,
    TokenVerifier,
    access_claims,
    signer_for,
    verify_access_token,
    x5t_s256,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Authlib announces that its jose gives way to joserfc
    from authlib.jose import JsonWebKey, JsonWebToken

ISSUER = "https://127.0.0.1:8443"
PEER = "spiffe://shop.example/service/orders"
X5T = x5t_s256(b"certificate")
TOKENS = 200
BATCH = 10
SEEN_BATCH = 500
WARM_UP = 3
BAR_FIRST = 1.25
BAR_SEEN_US = 3.0
EXPECTED = Expectation(audience="payments", operation="charge", per_operation=True, peer=PEER, x5t=X5T)
REGISTRY = joserfc.jwt.JWTClaimsRegistry(
    iss={"essential": True, "value": ISSUER},
    aud={"essential": True, "value": "payments#charge"},
    exp={"essential": True},
)


class Clock:
    """The machine's clock, as `runtime` has it."""

    def now(self):
        return datetime.now(UTC)

    def seconds(self):
        return time.time()


def claims_of(number, now):
    return access_claims(
        issuer=ISSUER,
        client_id=PEER,
        audience="payments#charge",
        scope=["payments.charge"],
        jti=f"01J9ZQ4M7K3T5V8W2X6Y{number:06}",
        issued_at=now,
        expires_at=now + 3600,
        x5t=X5T,
        txn="01J9ZQ4M7K3T5V8W2X6Y0B1C2D",
    )


def raw_of(public, token):
    """The bare check of one token, everything decoded before."""
    signing_input, _, signature = token.rpartition(".")
    message, raw = signing_input.encode(), decode_base64url(signature)
    if isinstance(public, rsa.RSAPublicKey):
        return lambda: public.verify(raw, message, padding.PKCS1v15(), hashes.SHA256())
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    scheme = ec.ECDSA(hashes.SHA256())
    return lambda: public.verify(der, message, scheme)


def peers_of(signer, tokens):
    """Return, by name, a maker of the list of calls of one round; each call raises unless the token is good."""
    public, alg = signer.public().key, signer.alg.value
    keys = StaticKeys(KeySet([PinnedKey.pin(signer.public())]))
    raw = [raw_of(public, token) for token in tokens]
    joserfc_key = joserfc.jwk.import_key(signer.public().to_members())
    authlib_key = JsonWebKey.import_key(signer.public().to_members())
    authlib = JsonWebToken([alg])
    options = {
        "iss": {"essential": True, "value": ISSUER},
        "aud": {"essential": True, "value": "payments#charge"},
    }

    def ours():
        verifier = TokenVerifier(keys, issuer=ISSUER, trust_domain="shop.example", clock=Clock())
        return [lambda token=token: verifier.access(token, EXPECTED).jti for token in tokens]

    def with_pyjwt(token):
        return pyjwt.decode(
            token,
            public,
            algorithms=[alg],
            audience="payments#charge",
            issuer=ISSUER,
            options={"require": ["exp"]},
        )["jti"]

    def with_joserfc(token):
        claims = joserfc.jwt.decode(token, joserfc_key, algorithms=[alg]).claims
        REGISTRY.validate(claims)
        return claims["jti"]

    def with_authlib(token):
        claims = authlib.decode(token, authlib_key, claims_options=options)
        claims.validate()
        return claims["jti"]

    now = datetime.now(UTC)

    def verify(token):
        return verify_access_token(token, keys, issuer=ISSUER, now=now).jti

    found = {
        "raw": lambda: raw,
        "everyhop": ours,
        "verify": lambda: [lambda token=t: verify(token) for t in tokens],
    }
    for name, call in (("PyJWT", with_pyjwt), ("joserfc", with_joserfc), ("Authlib", with_authlib)):
        found[name] = lambda call=call: [lambda token=token: call(token) for token in tokens]
    answers = {name: [call() for call in make()] for name, make in found.items() if name != "raw"}
    assert all(answer == answers["everyhop"] for answer in answers.values()), "they do not read the same"
    return found


def sample(calls, batch):
    """Return µs of CPU a call, one figure a batch."""
    clock, found = time.process_time_ns, []
    for start in range(0, len(calls), batch):
        part = calls[start : start + batch]
        began = clock()
        for call in part:
            call()
        found.append((clock() - began) / 1000 / len(part))
    return found


def interleave(makers, rounds, batch):
    """Return the samples by name, after the warm-up."""
    found = {name: [] for name in makers}
    for number in range(rounds + WARM_UP):
        for name, make in makers.items():
            took = sample(make(), batch)
            if number >= WARM_UP:
                found[name] += took
    return found


def report(title, samples, base):
    """Print median, p99 and the ratio of medians to `base`; return the ratios and medians."""
    print(f"  {title}")
    medians = {name: statistics.median(values) for name, values in samples.items()}
    for name, values in samples.items():
        p99 = sorted(values)[int(len(values) * 0.99)]
        print(
            f"    {name:<10} median {medians[name]:8.2f} µs  p99 {p99:8.2f} µs  {1e6 / medians[name]:10,.0f}/s"
            f"  {medians[name] / medians[base]:6.2f} x {base}"
        )
    return medians


def measure(alg, key, rounds):
    """Measure one algorithm; return the ratio of a first-seen token and the µs of a seen one."""
    signer = signer_for("2026-03-k1", key)
    mint, now = TokenMint(signer), int(time.time())
    tokens = [mint.access(claims_of(n, now)) for n in range(TOKENS)]
    medians = report(
        f"{alg} first seen, {len(tokens[0])} bytes",
        interleave(peers_of(signer, tokens), rounds, BATCH),
        "raw",
    )

    keys = StaticKeys(KeySet([PinnedKey.pin(signer.public())]))
    verifier = TokenVerifier(keys, issuer=ISSUER, trust_domain="shop.example", clock=Clock())
    calls = [lambda token=token: verifier.access(token, EXPECTED) for token in tokens] * 50
    sample(calls, SEEN_BATCH)
    seen = interleave(
        {"seen": lambda: calls, "empty": lambda: [lambda token=token: token for token in tokens] * 50},
        rounds,
        SEEN_BATCH,
    )
    report(f"{alg} seen, every re-check made (empty: what the loop itself costs)", seen, "seen")

    message = tokens[0].rpartition(".")[0].encode()
    scheme = ec.ECDSA(hashes.SHA256())
    bare = (
        (lambda: key.sign(message, scheme))
        if alg == "ES256"
        else (lambda: key.sign(message, padding.PKCS1v15(), hashes.SHA256()))
    )
    minting = {
        "raw sign": lambda: [bare] * TOKENS,
        "mint": lambda: [lambda n=n: mint.access(claims_of(n, now)) for n in range(TOKENS)],
    }
    report(f"{alg} mint", interleave(minting, max(rounds // 4, 2), BATCH), "raw sign")
    return medians["everyhop"] / medians["raw"], statistics.median(seen["seen"])


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args(argv)
    names = ("cryptography", "msgspec", "PyJWT", "joserfc", "Authlib")
    print(
        f"  {platform.machine()}, CPython {platform.python_version()}, "
        + " ".join(f"{n} {version(n)}" for n in names)
    )
    print(f"  {TOKENS} tokens, {options.rounds} interleaved rounds after {WARM_UP} of warm-up, one thread")
    ratio, seen = measure("ES256", ec.generate_private_key(ec.SECP256R1()), options.rounds)
    measure("RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048), options.rounds)
    failed = []
    if ratio > BAR_FIRST:
        failed.append(
            f"a first-seen ES256 token costs {ratio:.2f} x the bare check, the bar is {BAR_FIRST} x"
        )
    if seen > BAR_SEEN_US:
        failed.append(f"a seen token costs {seen:.2f} µs, the bar is {BAR_SEEN_US} µs")
    print(
        "  "
        + (
            "; ".join(failed)
            or f"bars met: {ratio:.2f} x <= {BAR_FIRST} x, {seen:.2f} µs <= {BAR_SEEN_US} µs"
        )
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
