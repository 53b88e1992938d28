# SPDX-License-Identifier: Apache-2.0
"""Signed payloads: refused for each thing that is wrong with them, then taken once; joserfc reads the JWS too."""

import json
import sys
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import joserfc.jwk
import joserfc.jws
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.identity import DOMAIN, HOUR, NOW, WORKLOAD_ID, FakeClock, TestCa, new_key
from tests.vectors.token_maker import b64, es256, hs256

from everyhop.core.errors import InputError, SignatureError, Unavailable
from everyhop.core.secret import Secret
from everyhop.jose import decode_base64url, public_key_to_jwk
from everyhop.sdk.signatures import (
    HttpMessage,
    HttpSigner,
    HttpVerifier,
    MessageSigner,
    MessageVerifier,
    Trust,
)
from everyhop.spiffe import SpiffeId, TrustDomain
from everyhop.spiffe.bundle import Bundle
from everyhop.tokens import MemoryReplayGuard
from everyhop.x509.thumbprint import x5t_s256

CA, OTHER_CA = TestCa(), TestCa(common="another ca")
ORDERS = SpiffeId.parse(WORKLOAD_ID)
LEDGER = SpiffeId.parse(f"spiffe://{DOMAIN}/service/ledger")
TD, OTHER_TD = TrustDomain.parse(DOMAIN), TrustDomain.parse("other.example")
AT = int(NOW.timestamp())


def bundle(domain, ca):
    return Bundle(trust_domain=domain, x509_authorities=(ca.der,), jwt_authorities={})


@dataclass
class Identity:
    uri: str = WORKLOAD_ID
    ca: TestCa = field(default_factory=lambda: CA)
    private: object = field(default_factory=new_key)
    not_after: datetime = NOW + HOUR

    def __post_init__(self):
        self.leaf = self.ca.leaf(key=self.private, uri=self.uri, not_after=self.not_after)
        self.chain = (self.leaf,)
        self.key = Secret(
            self.private.private_bytes(
                serialization.Encoding.DER,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


ME = Identity()
THIEF = Identity(uri=str(LEDGER))
STRANGER = Identity(ca=OTHER_CA)
FOREIGN = Identity(uri="spiffe://other.example/service/orders", ca=OTHER_CA)
EVERYBODY = {TD: bundle(TD, CA), OTHER_TD: bundle(OTHER_TD, OTHER_CA)}


def trust(allowed=frozenset({ORDERS}), bundles=None):
    return Trust(lambda: {TD: bundle(TD, CA)} if bundles is None else bundles, allowed)


def reason(call):
    with pytest.raises(SignatureError) as refusal:
        call()
    assert refusal.value.code == "SIGNATURE_REFUSED"
    return str(refusal.value.reason)


class TestMessages:
    PAYLOAD = b'{"order": 7}'

    @pytest.fixture
    def clock(self):
        return FakeClock()

    @pytest.fixture
    def verifier(self, clock):
        return MessageVerifier(
            audience="queue:billing", trust=trust(), replay=MemoryReplayGuard(clock), clock=clock
        )

    def sign(self, identity=ME, payload=PAYLOAD, clock=None, **changes):
        signer = MessageSigner(lambda: identity, clock or FakeClock())
        return signer.sign(payload, **{"audience": "queue:billing", **changes})

    def rewritten(self, sign=None, identity=ME, payload=PAYLOAD, **changes):
        head = self.sign(identity).split(".")[0]
        header = {**json.loads(decode_base64url(head)), **changes}
        header = {name: value for name, value in header.items() if value is not ...}
        made = (sign or es256(identity.private))(f"{b64(header)}.{b64(payload)}".encode())
        return f"{b64(header)}..{b64(made)}"

    def test_a_good_one_is_taken_once(self, verifier):
        signature = self.sign(nonce="n1")
        sender = verifier.verify(self.PAYLOAD, signature)
        assert (sender.spiffe_id, sender.x5t, sender.nonce) == (ORDERS, x5t_s256(ME.leaf), "n1")
        assert (sender.issued_at, sender.expires_at) == (AT, AT + 300)
        assert reason(lambda: verifier.verify(self.PAYLOAD, signature)) == "REPLAYED"
        verifier.verify(self.PAYLOAD, self.sign())

    @pytest.mark.parametrize("payload", [b"", b"x", PAYLOAD + b" ", b"{" + PAYLOAD])
    def test_changed_body(self, verifier, payload):
        assert reason(lambda: verifier.verify(payload, self.sign())) == "SIGNATURE_INVALID"

    def test_wrong_audience(self, verifier):
        for audience in ("queue:shipping", "queue:billing2", "QUEUE:BILLING"):
            signature = self.sign(audience=audience)
            assert reason(lambda s=signature: verifier.verify(self.PAYLOAD, s)) == "AUDIENCE_MISMATCH"

    def test_expired_and_early(self, verifier, clock):
        signature = self.sign()
        clock.advance(timedelta(seconds=305))
        assert reason(lambda: verifier.verify(self.PAYLOAD, signature)) == "EXPIRED"
        early = self.sign(clock=FakeClock(NOW + timedelta(minutes=10)))
        assert reason(lambda: verifier.verify(self.PAYLOAD, early)) == "NOT_YET_VALID"

    def test_it_ends_with_the_certificate(self, verifier, clock):
        short = Identity(not_after=NOW + timedelta(seconds=60))
        signature = self.sign(short)
        assert verifier.verify(self.PAYLOAD, signature).expires_at == AT + 60
        clock.advance(timedelta(seconds=61))
        assert reason(lambda: verifier.verify(self.PAYLOAD, signature)) == "SENDER_UNTRUSTED"
        with pytest.raises(InputError):
            self.sign(short, clock=clock)

    def test_key_of_another_workload(self, verifier, clock):
        assert reason(lambda: verifier.verify(self.PAYLOAD, self.sign(THIEF))) == "SENDER_NOT_ALLOWED"
        # The chain of the one with the signature of the other.
        forged = self.rewritten(sign=es256(THIEF.private))
        assert reason(lambda: verifier.verify(self.PAYLOAD, forged)) == "SIGNATURE_INVALID"
        renamed = self.rewritten(kid=x5t_s256(THIEF.leaf))
        assert reason(lambda: verifier.verify(self.PAYLOAD, renamed)) == "SIGNATURE_INVALID"
        asked = []
        open_to = trust(allowed=lambda one: asked.append(one) or one == LEDGER)
        there = MessageVerifier(
            audience="queue:billing", trust=open_to, replay=MemoryReplayGuard(clock), clock=clock
        )
        assert there.verify(self.PAYLOAD, self.sign(THIEF)).spiffe_id == LEDGER
        assert asked == [LEDGER]

    def test_chain_of_another_authority_or_trust_domain(self, verifier, clock):
        assert reason(lambda: verifier.verify(self.PAYLOAD, self.sign(STRANGER))) == "SENDER_UNTRUSTED"
        assert reason(lambda: verifier.verify(self.PAYLOAD, self.sign(FOREIGN))) == "SENDER_UNTRUSTED"
        federated = MessageVerifier(
            audience="queue:billing",
            trust=trust(bundles=EVERYBODY),
            replay=MemoryReplayGuard(clock),
            clock=clock,
        )
        assert reason(lambda: federated.verify(self.PAYLOAD, self.sign(FOREIGN))) == "SENDER_NOT_ALLOWED"
        # A leaf that names our domain, from an authority that is trusted for the other.
        assert reason(lambda: federated.verify(self.PAYLOAD, self.sign(STRANGER))) == "SENDER_UNTRUSTED"

    def test_content_type_is_part_of_it(self, verifier):
        typed = self.sign(content_type="application/json")
        assert reason(lambda: verifier.verify(self.PAYLOAD, typed)) == "NOT_COVERED"
        assert reason(lambda: verifier.verify(self.PAYLOAD, typed, content_type="text/xml")) == "NOT_COVERED"
        assert (
            reason(lambda: verifier.verify(self.PAYLOAD, self.sign(), content_type="text/xml"))
            == "NOT_COVERED"
        )
        verifier.verify(self.PAYLOAD, typed, content_type="application/json")

    def test_algorithm_confusion(self, verifier):
        pem = ME.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for made in (
            self.rewritten(alg="HS256", sign=hs256(pem)),
            self.rewritten(alg="none", sign=lambda _: b""),
            self.rewritten(alg="ES384"),
            self.rewritten(alg=["ES256"]),
            self.rewritten(typ="JWT"),
            self.rewritten(sign=lambda _: bytes(64)),
        ):
            assert reason(lambda m=made: verifier.verify(self.PAYLOAD, m)) == "SIGNATURE_INVALID"

    @pytest.mark.parametrize(
        "changes",
        [
            {"aud": ...},
            {"exp": ...},
            {"jti": ...},
            {"x5c": ...},
            {"kid": ...},
            {"crit": ["exp"]},
            {"b64": False},
            {"jwk": {}},
            {"jku": "https://attacker.example"},
            {"aud": ["queue:billing"]},
            {"aud": ""},
            {"aud": "a\nb"},
            {"jti": "x" * 129},
            {"jti": 7},
            {"cty": 7},
            {"iat": float(AT)},
            {"exp": True},
            {"exp": str(AT + 60)},
            {"exp": AT + 3601},
            {"exp": AT},
            {"iat": -1},
            {"x5c": []},
            {"x5c": "text"},
            {"x5c": [7]},
            {"x5c": ["!"]},
            {"x5c": ["AAAA"] * 6},
        ],
    )
    def test_malformed_headers(self, verifier, changes):
        made = self.rewritten(**changes)
        assert reason(lambda: verifier.verify(self.PAYLOAD, made)) == "MALFORMED"

    def test_a_chain_that_is_no_certificate(self, verifier):
        made = self.rewritten(x5c=["AAAA"])
        assert reason(lambda: verifier.verify(self.PAYLOAD, made)) == "SENDER_UNTRUSTED"

    @pytest.mark.parametrize(
        "text", ["", ".", "..", "a..b", "a.b.c", "a..b..c", "\udc80..x", "x" * 40000, "é..é"]
    )
    def test_malformed_forms(self, verifier, text):
        assert reason(lambda: verifier.verify(self.PAYLOAD, text)) == "MALFORMED"

    def test_oversize(self, verifier):
        big = b"x" * (16 * 1024 * 1024 + 1)
        assert reason(lambda: verifier.verify(big, self.sign())) == "MALFORMED"
        with pytest.raises(InputError):
            self.sign(payload=big)

    def test_a_guard_that_fails_refuses(self, clock):
        class Away:
            def use(self, jti, expires_at):
                raise OSError

        there = MessageVerifier(audience="queue:billing", trust=trust(), replay=Away(), clock=clock)
        assert reason(lambda: there.verify(self.PAYLOAD, self.sign())) == "REPLAYED"

    def test_what_cannot_be_signed(self):
        for changes in (
            {"lifetime": timedelta(hours=2)},
            {"lifetime": timedelta(0)},
            {"audience": ""},
            {"nonce": "x" * 129},
            {"content_type": ""},
        ):
            with pytest.raises(InputError):
                self.sign(**changes)
        with pytest.raises(InputError):
            self.sign(Identity(private=ec.generate_private_key(ec.SECP384R1())))

    def test_a_sender_on_another_curve_is_not_believed(self, verifier):
        other = Identity(private=ec.generate_private_key(ec.SECP384R1()))
        with pytest.raises(SignatureError) as refusal:
            trust().believe(other.chain, NOW)
        assert refusal.value.reason == "SENDER_UNTRUSTED"

    def test_the_signer_follows_the_rotation(self, verifier):
        identities = [ME]
        signer = MessageSigner(lambda: identities[-1], FakeClock())
        first = verifier.verify(b"1", signer.sign(b"1", audience="queue:billing"))
        verifier.verify(b"2", signer.sign(b"2", audience="queue:billing"))
        identities.append(Identity())
        second = verifier.verify(b"3", signer.sign(b"3", audience="queue:billing"))
        assert (first.x5t, second.x5t) == (x5t_s256(ME.leaf), x5t_s256(identities[-1].leaf))

    def test_joserfc_reads_it(self):
        head, _, signature = self.sign().split(".")
        key = joserfc.jwk.import_key(public_key_to_jwk(ME.private.public_key()))
        registry = joserfc.jws.JWSRegistry(algorithms=["ES256"], strict_check_header=False)
        registry.max_header_length = 8192
        whole = f"{head}.{b64(self.PAYLOAD)}.{signature}"
        obj = joserfc.jws.deserialize_compact(whole, key, algorithms=["ES256"], registry=registry)
        assert obj.payload == self.PAYLOAD


class TestHttp:
    MESSAGE = HttpMessage(
        "POST",
        "https://billing.example/hooks/orders?id=7",
        (("Host", "billing.example"), ("Content-Type", "application/json")),
        b'{"order": 7}',
    )

    @pytest.fixture
    def clock(self):
        return FakeClock()

    def verifier(self, clock=None, **changes):
        clock = clock or FakeClock()
        values = {"audience": "billing", "trust": trust(), "replay": MemoryReplayGuard(clock), "clock": clock}
        return HttpVerifier(**{**values, **changes})

    def signed(self, message=MESSAGE, identity=ME, clock=None, **changes):
        signer = HttpSigner(lambda: identity, clock or FakeClock())
        return replace(
            message, headers=(*message.headers, *signer.sign(message, **{"audience": "billing", **changes}))
        )

    def with_field(self, message, name, change):
        lines = tuple((key, change(value) if key == name else value) for key, value in message.headers)
        assert lines != message.headers
        return replace(message, headers=lines)

    def without(self, message, name):
        return replace(message, headers=tuple(line for line in message.headers if line[0] != name))

    def test_a_good_one_is_taken_once(self):
        verifier, message = self.verifier(), self.signed(nonce="n1")
        sender = verifier.verify(message)
        assert (sender.spiffe_id, sender.x5t, sender.nonce) == (ORDERS, x5t_s256(ME.leaf), "n1")
        assert sender.expires_at == AT + 300
        assert reason(lambda: verifier.verify(message)) == "REPLAYED"
        verifier.verify(self.signed())

    def test_without_body_and_type(self):
        bare = HttpMessage("GET", "https://billing.example/")
        self.verifier().verify(self.signed(bare))

    @pytest.mark.parametrize(
        "changes",
        [
            {"method": "PUT"},
            {"url": "https://billing.example/hooks/refunds?id=7"},
            {"url": "https://billing.example/hooks/orders?id=8"},
            {"url": "https://billing.example/hooks/orders"},
            {"url": "https://attacker.example/hooks/orders?id=7"},
            {"url": "https://billing.example:8443/hooks/orders?id=7"},
            {"body": b'{"order": 8}'},
            {"body": b""},
        ],
    )
    def test_changed_request(self, changes):
        assert (
            reason(lambda: self.verifier().verify(replace(self.signed(), **changes))) == "SIGNATURE_INVALID"
        )

    def test_changed_fields(self):
        for name, change in (
            ("Content-Type", lambda _: "text/plain"),
            ("Content-Digest", lambda value: value.replace("A", "B") + " "),
            ("Everyhop-Audience", lambda _: "shipping"),
        ):
            made = self.with_field(self.signed(), name, change)
            assert reason(lambda m=made: self.verifier().verify(m)) == "SIGNATURE_INVALID"

    def test_digest_and_body_changed_together(self):
        other = self.signed(replace(self.MESSAGE, body=b"other"))
        digest = other.one("content-digest")
        made = self.with_field(self.signed(), "Content-Digest", lambda _: digest)
        assert reason(lambda: self.verifier().verify(replace(made, body=b"other"))) == "SIGNATURE_INVALID"

    def test_wrong_audience(self):
        made = self.signed(audience="shipping")
        assert reason(lambda: self.verifier().verify(made)) == "AUDIENCE_MISMATCH"

    def test_expired_early_and_by_our_clock_alone(self, clock):
        made, verifier = self.signed(), self.verifier(clock)
        clock.advance(timedelta(seconds=305))
        assert reason(lambda: verifier.verify(made)) == "EXPIRED"
        early = self.signed(clock=FakeClock(NOW + timedelta(minutes=10)))
        assert reason(lambda: self.verifier().verify(early)) == "NOT_YET_VALID"

    def test_key_of_another_workload(self):
        assert reason(lambda: self.verifier().verify(self.signed(identity=THIEF))) == "SENDER_NOT_ALLOWED"
        # The thief's signature under our name, with our chain.
        mine, stolen = self.signed(), self.signed(identity=THIEF)
        for name in ("Signature", "Signature-Input", "Everyhop-Certificate-Chain"):
            made = self.with_field(mine, name, lambda _, n=name: stolen.one(n))
            assert reason(lambda m=made: self.verifier().verify(m)) in {
                "SIGNATURE_INVALID",
                "SENDER_NOT_ALLOWED",
            }

    def test_chain_of_another_authority_or_trust_domain(self):
        assert reason(lambda: self.verifier().verify(self.signed(identity=STRANGER))) == "SENDER_UNTRUSTED"
        assert reason(lambda: self.verifier().verify(self.signed(identity=FOREIGN))) == "SENDER_UNTRUSTED"
        federated = self.verifier(trust=trust(bundles=EVERYBODY))
        assert reason(lambda: federated.verify(self.signed(identity=FOREIGN))) == "SENDER_NOT_ALLOWED"

    @pytest.mark.parametrize(
        "name",
        ["@method", "@authority", "@path", "@query", "content-digest", "everyhop-audience", "content-type"],
    )
    def test_missing_component(self, name, monkeypatch):
        from everyhop.sdk.signatures import http_messages

        covered = http_messages._covered
        monkeypatch.setattr(
            http_messages,
            "_covered",
            lambda message, **given: tuple(n for n in covered(message, **given) if n != name),
        )
        made = self.signed()
        monkeypatch.undo()
        assert reason(lambda: self.verifier().verify(made)) == "NOT_COVERED"

    @pytest.mark.parametrize(
        "change",
        [
            lambda value: value.replace("ecdsa-p256-sha256", "hmac-sha256"),
            lambda value: value.replace("ecdsa-p256-sha256", "rsa-pss-sha512"),
            lambda value: value.replace(';alg="ecdsa-p256-sha256"', ""),
            lambda value: value.replace('tag="everyhop"', 'tag="other"'),
            lambda value: value.replace("created=", "created=1"),
            lambda value: value.replace(f"expires={AT + 300}", f"expires={AT + 900}"),
            lambda value: value.replace('"@method" ', ""),
            lambda value: value.replace('"@method"', '"@method" "@method"'),
            lambda value: f'{value}, second=("@method");created={AT}',
        ],
    )
    def test_changed_parameters(self, change):
        made = self.with_field(self.signed(), "Signature-Input", change)
        assert reason(lambda: self.verifier().verify(made)) == "SIGNATURE_INVALID"

    def test_algorithm_confusion(self):
        # A signature by HMAC keyed with the public key, named as such.
        import http_message_signatures as library

        pem = ME.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        good = self.signed()
        lines = {key: value for key, value in good.headers if not key.startswith("Signature")}

        class Request:
            method, url, headers = good.method, good.url, lines

        class Keys(library.HTTPSignatureKeyResolver):
            def resolve_private_key(self, key_id):
                return pem

        signer = library.HTTPMessageSigner(
            signature_algorithm=library.algorithms.HMAC_SHA256, key_resolver=Keys()
        )
        covered = ("@method", "@authority", "@path", "@query", "content-digest", "everyhop-audience")
        signer.sign(
            Request(),
            key_id=x5t_s256(ME.leaf),
            created=NOW,
            expires=NOW + timedelta(seconds=60),
            nonce="n",
            label="everyhop",
            tag="everyhop",
            covered_component_ids=covered,
        )
        made = replace(good, headers=tuple(Request.headers.items()))
        assert reason(lambda: self.verifier().verify(made)) == "SIGNATURE_INVALID"

    @pytest.mark.parametrize(
        "name", ["Signature", "Signature-Input", "Content-Digest", "Everyhop-Audience", "Content-Type"]
    )
    def test_a_field_twice(self, name):
        good = self.signed()
        made = replace(good, headers=(*good.headers, (name, good.one(name))))
        assert reason(lambda: self.verifier().verify(made)) == "MALFORMED"

    @pytest.mark.parametrize("name", ["Signature", "Signature-Input", "Content-Digest", "Everyhop-Audience"])
    def test_a_field_missing(self, name):
        assert (
            reason(lambda: self.verifier().verify(self.without(self.signed(), name))) == "SIGNATURE_INVALID"
        )

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("Everyhop-Certificate-Chain", ""),
            ("Everyhop-Certificate-Chain", "AAAA"),
            ("Everyhop-Certificate-Chain", ":!:"),
            ("Everyhop-Certificate-Chain", ", ".join([":AAAA:"] * 6)),
            ("Everyhop-Certificate-Chain", ":" + "A" * 32764 + ":"),
            ("X-Large", "x" * 40000),
        ],
    )
    def test_malformed_and_oversize_fields(self, name, value):
        made = replace(
            self.without(self.signed(), name),
            headers=(*self.without(self.signed(), name).headers, (name, value)),
        )
        assert reason(lambda: self.verifier().verify(made)) == "MALFORMED"

    def test_oversize(self):
        assert (
            reason(lambda: self.verifier().verify(replace(self.signed(), body=b"x" * (16 * 2**20 + 1))))
            == "MALFORMED"
        )
        many = replace(self.MESSAGE, headers=tuple((f"x-{n}", "1") for n in range(201)))
        assert reason(lambda: self.verifier().verify(many)) == "MALFORMED"
        with pytest.raises(InputError):
            self.signed(replace(self.MESSAGE, body=b"x" * (16 * 2**20 + 1)))

    def test_garbage(self):
        for value in ("", "x", "sig=()", 'everyhop=("@method");created="now"', "\x00", "é", "everyhop=1"):
            made = replace(
                self.MESSAGE, headers=(("Signature-Input", value), ("Signature", "everyhop=:AAAA:"))
            )
            assert reason(lambda m=made: self.verifier().verify(m)) in {"SIGNATURE_INVALID", "MALFORMED"}

    def test_another_label_is_another_signature(self):
        made = self.signed()
        for name in ("Signature", "Signature-Input"):
            made = self.with_field(made, name, lambda value: value.replace("everyhop=", "other=", 1))
        assert reason(lambda: self.verifier().verify(made)) == "MALFORMED"

    def test_a_chain_that_is_looked_up(self):
        from everyhop.sdk.signatures import http_messages

        covered = http_messages._covered
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(http_messages, "_covered", lambda message: covered(message, chain_is_sent=False))
            made = self.without(self.signed(), "Everyhop-Certificate-Chain")
        asked = []

        def known(keyid):
            asked.append(keyid)
            return ME.chain

        assert self.verifier(chain_of=known).verify(made).spiffe_id == ORDERS
        assert asked == [x5t_s256(ME.leaf)]
        assert reason(lambda: self.verifier().verify(made)) == "SENDER_UNTRUSTED"
        assert reason(lambda: self.verifier(chain_of=lambda _: None).verify(made)) == "SENDER_UNTRUSTED"
        assert (
            reason(lambda: self.verifier(chain_of=lambda _: THIEF.chain).verify(made)) == "SIGNATURE_INVALID"
        )

    def test_what_cannot_be_signed(self):
        for message, changes in (
            (self.signed(), {}),
            (self.MESSAGE, {"audience": ""}),
            (self.MESSAGE, {"lifetime": timedelta(hours=2)}),
            (replace(self.MESSAGE, method="post"), {}),
            (replace(self.MESSAGE, headers=(("Content-Type", "a"), ("content-type", "b"))), {}),
        ):
            with pytest.raises(InputError):
                self.signed(message, **changes)

    def test_without_the_library(self, monkeypatch):
        message = self.signed()
        monkeypatch.setitem(sys.modules, "http_message_signatures", None)
        for call in (lambda: self.verifier().verify(message), self.signed):
            with pytest.raises(Unavailable) as refusal:
                call()
            assert "everyhop[signatures]" in refusal.value.hint


@pytest.mark.parametrize("chain", [(), (b"x",) * 6, (b"x" * 17_000,)])
def test_chains_that_are_not_even_read(chain):
    assert reason(lambda: trust().believe(chain, NOW)) == "MALFORMED"


def test_no_bundle_no_trust():
    assert reason(lambda: trust(bundles={}).believe(ME.chain, NOW)) == "SENDER_UNTRUSTED"


def test_the_library_is_loaded_only_when_it_is_used():
    import subprocess

    code = "import sys, everyhop.sdk.signatures; print('http_message_signatures' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
