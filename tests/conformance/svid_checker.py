# SPDX-License-Identifier: Apache-2.0
"""A clause checker for what everyhop mints: X509-SVID leaf and signing certificate, JWT-SVID, bundle.

It reads DER and JSON by itself and imports nothing of the product, so it cannot share a mistake with it.  Each finding
names the clause that is broken, e.g. ``X509-SVID 4.3``; an empty list means that every clause below holds.

    python tests/conformance/svid_checker.py leaf svid.pem bundle.pem | jwt token.txt bundle.json | bundle bundle.json
"""

from __future__ import annotations

import json
import re
import sys
from base64 import b64decode, urlsafe_b64decode
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID

MUST, SHOULD = "MUST", "SHOULD"
JWT_ALGORITHMS = {a + b for a in ("RS", "ES", "PS") for b in ("256", "384", "512")}


@dataclass(frozen=True)
class Finding:
    """One broken clause."""

    clause: str
    level: str
    text: str


class Report(list):
    """Findings as they are made."""

    def demand(self, holds, clause, text, level=MUST):
        if not holds:
            self.append(Finding(clause, level, text))
        return bool(holds)


# --- SPIFFE-ID.md section 2 ------------------------------------------------------------------------------------------


def check_spiffe_id(uri, report, *, prefix="SPIFFE-ID"):
    """Check the text of an id; return (trust domain, path) as far as they can be read."""
    match = re.fullmatch(r"([^:/?#]*):(?://([^/?#]*))?([^?#]*)(\?[^#]*)?(#.*)?", uri, re.DOTALL)
    scheme, authority, path, query, fragment = match.groups() if match else ("", None, "", None, None)
    report.demand(scheme.lower() == "spiffe", f"{prefix} 2", "the scheme is spiffe")
    report.demand(bool(authority), f"{prefix} 2", "the trust domain is not empty")
    report.demand(query is None and fragment is None, f"{prefix} 2", "there is no query and no fragment")
    name = authority or ""
    report.demand("@" not in name and ":" not in name, f"{prefix} 2.1", "there is no user and no port")
    report.demand(
        not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789.-_@:"),
        f"{prefix} 2.1",
        "the trust domain's characters",
    )
    if path:
        segments = path.split("/")[1:]
        report.demand(path.startswith("/"), f"{prefix} 2.2", "a path starts with a slash")
        report.demand(all(segments), f"{prefix} 2.2", "no segment is empty and there is no trailing slash")
        report.demand(not {".", ".."} & set(segments), f"{prefix} 2.2", "there are no dot segments")
        report.demand(
            all(re.fullmatch(r"[a-zA-Z0-9._-]*", s) for s in segments),
            f"{prefix} 2.2",
            "the path's characters",
        )
    report.demand(len(uri) <= 2048 and len(name) <= 255, f"{prefix} 2.3", "lengths", SHOULD)
    return name, path


# --- X509-SVID.md ----------------------------------------------------------------------------------------------------


class Certificate:
    """A certificate's parts, read without judging."""

    def __init__(self, der):
        self.x509 = x509.load_der_x509_certificate(der)
        self.extensions = {e.oid: e for e in self.x509.extensions}

    def extension(self, kind):
        return self.extensions.get(kind.oid)

    @property
    def uris(self):
        names = self.extension(x509.SubjectAlternativeName)
        return names.value.get_values_for_type(x509.UniformResourceIdentifier) if names else []

    @property
    def is_ca(self):
        constraints = self.extension(x509.BasicConstraints)
        return bool(constraints and constraints.value.ca)


def check_profile(certificate, report):
    """Check what RFC 5280 asks of every certificate here."""
    report.demand(certificate.x509.version is x509.Version.v3, "RFC 5280 4.1.2.1", "version 3")
    serial = certificate.x509.serial_number
    report.demand(0 < serial < 2**160, "RFC 5280 4.1.2.2", "a positive serial number of at most 20 octets")
    algorithm = certificate.x509.signature_hash_algorithm
    report.demand(
        isinstance(algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512),
        "RFC 5280 4.1.1.2",
        "a sound hash",
    )
    constraints = certificate.extension(x509.BasicConstraints)
    report.demand(
        not certificate.is_ca or constraints.critical,
        "RFC 5280 4.2.1.9",
        "basic constraints of a CA are critical",
    )


def check_key_usage(certificate, report):
    usage = certificate.extension(x509.KeyUsage)
    if report.demand(usage is not None, "X509-SVID 4.3", "key usage is present"):
        report.demand(usage.critical, "X509-SVID 4.3", "key usage is critical")
        return usage.value
    return None


def check_leaf(der, report=None):
    """Check one leaf by itself."""
    report = Report() if report is None else report
    leaf = Certificate(der)
    check_profile(leaf, report)
    if report.demand(len(leaf.uris) == 1, "X509-SVID 2", "there is exactly one URI"):
        _, path = check_spiffe_id(leaf.uris[0], report)
        report.demand(path.strip("/"), "X509-SVID 3.1", "the id of a leaf has a path")
    names = leaf.extension(x509.SubjectAlternativeName)
    report.demand(
        leaf.x509.subject.rdns or (names and names.critical),
        "X509-SVID 3.1",
        "the URI is critical if the subject is empty",
    )
    report.demand(not leaf.is_ca, "X509-SVID 4.1", "cA is false")
    usage = check_key_usage(leaf, report)
    if usage is not None:
        report.demand(usage.digital_signature, "X509-SVID 4.3", "digitalSignature is set")
        report.demand(not usage.key_cert_sign, "X509-SVID 4.3", "keyCertSign is not set")
        report.demand(not usage.crl_sign, "X509-SVID 4.3", "cRLSign is not set")
    purposes = leaf.extension(x509.ExtendedKeyUsage)
    if report.demand(purposes is not None, "X509-SVID 4.4", "extended key usage is present", SHOULD):
        both = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
        report.demand(both <= set(purposes.value), "X509-SVID 4.4", "both serverAuth and clientAuth")
    return report


def check_signing_certificate(der, report=None):
    """Check one CA by itself."""
    report = Report() if report is None else report
    ca = Certificate(der)
    check_profile(ca, report)
    report.demand(len(ca.uris) <= 1, "X509-SVID 2", "there is at most one URI")
    if report.demand(ca.uris, "X509-SVID 3.2", "a signing certificate is an SVID", SHOULD):
        _, path = check_spiffe_id(ca.uris[0], report)
        report.demand(not path, "X509-SVID 3.2", "the id of a signing certificate has no path")
    report.demand(ca.is_ca, "X509-SVID 4.1", "cA is true")
    usage = check_key_usage(ca, report)
    if usage is not None:
        report.demand(usage.key_cert_sign, "X509-SVID 4.3", "keyCertSign is set")
        others = (usage.digital_signature, usage.key_encipherment, usage.key_agreement)
        report.demand(not any(others), "X509-SVID 4.3", "a CA's key does nothing else", SHOULD)
    report.demand(ca.extension(x509.SubjectKeyIdentifier), "RFC 5280 4.2.1.2", "a CA has a key identifier")
    return report


def check_x509_svid(chain, authorities, trust_domain, now):
    """Check a chain, leaf first, against the CA certificates of its trust domain."""
    report = check_leaf(chain[0])
    for der in chain[1:]:
        check_signing_certificate(der, report)
    leaf = Certificate(chain[0])
    for uri in leaf.uris:
        report.demand(
            uri.split("/")[2:3] == [trust_domain], "X509-SVID 5.1", "the leaf is of the bundle's trust domain"
        )
    path = [Certificate(der) for der in chain]
    roots = [Certificate(der) for der in authorities]
    for child, parents in zip(path, [[p] for p in path[1:]] + [roots], strict=True):
        found = [p for p in parents if p.is_ca and is_issued_by(child, p)]
        if report.demand(
            found, "X509-SVID 5.1", "each certificate is signed by the next, the last by the bundle"
        ):
            check_identifier(child, found[0], report)
            lives = child.x509.not_valid_after_utc <= found[0].x509.not_valid_after_utc
            report.demand(lives, "X509-SVID 5.1", "no certificate outlives its issuer", SHOULD)
    for one in path:
        in_time = one.x509.not_valid_before_utc <= now <= one.x509.not_valid_after_utc
        report.demand(in_time, "RFC 5280 6.1.3", "it is valid now")
    return report


def is_issued_by(child, parent):
    try:
        child.x509.verify_directly_issued_by(parent.x509)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def check_identifier(child, parent, report):
    ours, theirs = child.extension(x509.AuthorityKeyIdentifier), parent.extension(x509.SubjectKeyIdentifier)
    if ours and theirs:
        same = ours.value.key_identifier == theirs.value.digest
        report.demand(same, "RFC 5280 4.2.1.1", "the authority key identifier is the issuer's")


# --- JWT-SVID.md -----------------------------------------------------------------------------------------------------


def unpad(text):
    if re.fullmatch(r"[A-Za-z0-9_-]*", text) is None:
        raise ValueError("not base64url")
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def parse_object(data, report, clause):
    """Parse JSON, telling of members that stand twice."""

    def unique(pairs):
        report.demand(len(dict(pairs)) == len(pairs), clause, "no member stands twice")
        return dict(pairs)

    try:
        value = json.loads(data, object_pairs_hook=unique)
    except ValueError:
        value = None
    report.demand(isinstance(value, dict), clause, "it is a JSON object")
    return value if isinstance(value, dict) else {}


def check_jwt_svid(token, bundle_document, trust_domain, audience, now):
    """Check a token against a bundle document (bytes)."""
    report = Report()
    parts = token.split(".")
    try:
        raw = [unpad(part) for part in parts]
    except ValueError:
        raw = []
    if not report.demand(len(raw) == 3 and len(parts) == 3, "JWT-SVID 1", "it is in compact serialization"):
        return report
    header = parse_object(raw[0], report, "RFC 7515 4")
    report.demand(set(header) <= {"alg", "kid", "typ"}, "JWT-SVID 2", "no header but alg, kid and typ")
    alg = header.get("alg")
    known = report.demand(
        isinstance(alg, str) and alg in JWT_ALGORITHMS, "JWT-SVID 2.1", "alg is in the list"
    )
    report.demand(isinstance(header.get("kid"), str), "JWT-SVID 2.2", "kid is present", SHOULD)
    report.demand(header.get("typ", "JWT") in ("JWT", "JOSE"), "JWT-SVID 2.3", "typ is absent, JWT or JOSE")
    claims = parse_object(raw[1], report, "RFC 7519 7.2")
    check_claims(claims, report, trust_domain, audience, now)
    keys = jwt_keys(bundle_document).get(header.get("kid"), []) if isinstance(header.get("kid"), str) else []
    if (
        report.demand(len(keys) == 1, "JWT-SVID 6.2", "the bundle has one jwt-svid key of that name")
        and known
    ):
        signed = ".".join(parts[:2]).encode()
        report.demand(is_signed(keys[0], alg, signed, raw[2]), "JWT-SVID 5.1", "the signature is the key's")
    return report


def check_claims(claims, report, trust_domain, audience, now):
    subject = claims.get("sub")
    if report.demand(isinstance(subject, str), "JWT-SVID 3.1", "sub is present"):
        inner = Report()
        domain, path = check_spiffe_id(subject, inner)
        report.demand(not inner, "JWT-SVID 3.1", "sub is a SPIFFE ID")
        report.demand(domain == trust_domain, "JWT-SVID 3.1", "sub is of the bundle's trust domain")
        report.demand(path, "JWT-SVID 3.1", "sub is a workload", SHOULD)
    aud = claims.get("aud")
    audiences = [aud] if isinstance(aud, str) else aud
    if report.demand(
        isinstance(audiences, list) and audiences and all(isinstance(a, str) and a for a in audiences),
        "JWT-SVID 3.2",
        "aud is present, with at least one value",
    ):
        report.demand(audience in audiences, "JWT-SVID 3.2", "aud names the one who checks")
        report.demand(len(audiences) == 1, "JWT-SVID 3.2", "there is one audience", SHOULD)
    exp = claims.get("exp")
    if report.demand(type(exp) in (int, float), "JWT-SVID 3.3", "exp is present and a number"):
        report.demand(exp > now.timestamp(), "JWT-SVID 3.3", "it has not expired")


def jwt_keys(document):
    found = {}
    for entry in json.loads(document)["keys"]:
        if entry.get("use") == "jwt-svid" and "kid" in entry:
            found.setdefault(entry["kid"], []).append(entry)
    return found


def load_key(entry):
    def number(field):
        return int.from_bytes(unpad(entry[field]), "big")

    if entry["kty"] == "RSA":
        return rsa.RSAPublicNumbers(number("e"), number("n")).public_key()
    curve = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}[entry["crv"]]
    return ec.EllipticCurvePublicNumbers(number("x"), number("y"), curve).public_key()


def is_signed(entry, alg, message, signature):
    digest = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[alg[2:]]
    curve = {"256": "P-256", "384": "P-384", "512": "P-521"}[alg[2:]]
    try:
        key = load_key(entry)
        if alg.startswith("ES"):
            half = (key.curve.key_size + 7) // 8
            if entry["crv"] != curve or len(signature) != 2 * half:
                return False
            r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(digest))
        elif alg.startswith("PS"):
            key.verify(signature, message, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        else:
            key.verify(signature, message, padding.PKCS1v15(), digest)
    except (InvalidSignature, ValueError, KeyError, AttributeError, TypeError):
        return False
    return True


# --- SPIFFE_Trust_Domain_and_Bundle.md -------------------------------------------------------------------------------


def check_bundle(document, now=None, trust_domain=None):
    """Check a bundle document (bytes)."""
    report = Report()
    value = parse_object(document, report, "Bundle 4")
    sequence, hint, keys = (value.get(n) for n in ("spiffe_sequence", "spiffe_refresh_hint", "keys"))
    if report.demand("spiffe_sequence" in value, "Bundle 4.1.1", "there is a sequence number", SHOULD):
        report.demand(type(sequence) is int and 0 <= sequence < 2**64, "Bundle 4.1.1", "it is an integer")
    if report.demand("spiffe_refresh_hint" in value, "Bundle 4.1.2", "there is a refresh hint", SHOULD):
        report.demand(type(hint) is int and hint >= 0, "Bundle 4.1.2", "it is in whole seconds")
    if not report.demand(isinstance(keys, list), "Bundle 4.1.3", "there is an array of keys"):
        return report
    for entry in keys:
        if report.demand(isinstance(entry, dict), "Bundle 4.2", "an entry is an object"):
            check_entry(entry, report, trust_domain, now)
    names = Counter(e.get("kid") for e in keys if isinstance(e, dict) and e.get("use") == "jwt-svid")
    report.demand(all(n == 1 for n in names.values()), "JWT-SVID 6.1", "each JWT key has a name of its own")
    return report


def check_entry(entry, report, trust_domain, now):
    report.demand(isinstance(entry.get("kty"), str), "Bundle 4.2.1", "kty is present")
    report.demand(
        entry.get("use") in ("x509-svid", "jwt-svid", "wit-svid"), "Bundle 4.2.2", "use is present and known"
    )
    private = {"d", "p", "q", "dp", "dq", "qi", "k"} & set(entry)
    report.demand(not private, "Bundle 4.2", "only public keys are published")
    if entry.get("use") == "x509-svid":
        check_x509_entry(entry, report, trust_domain, now)
    elif entry.get("use") == "jwt-svid":
        report.demand(isinstance(entry.get("kid"), str) and entry["kid"], "JWT-SVID 6.1", "kid is present")
        report.demand(is_loadable(entry), "JWT-SVID 6.1", "the key can be loaded")


def check_x509_entry(entry, report, trust_domain, now):
    report.demand("kid" not in entry, "X509-SVID 6.1", "there is no kid")
    x5c = entry.get("x5c")
    if not report.demand(
        isinstance(x5c, list) and len(x5c) == 1, "X509-SVID 6.1", "x5c holds exactly one certificate"
    ):
        return
    try:
        der = b64decode(x5c[0], validate=True)
        ca = Certificate(der)
    except (ValueError, TypeError):
        report.demand(False, "X509-SVID 6.1", "x5c is a certificate in base64 DER")
        return
    check_signing_certificate(der, report)
    report.demand(is_issued_by(ca, ca), "X509-SVID 6.1", "it is self-signed", SHOULD)
    same = is_loadable(entry) and load_key(entry).public_numbers() == ca.x509.public_key().public_numbers()
    report.demand(same, "RFC 7517 4.7", "the key is the certificate's")
    for uri in ca.uris if trust_domain else ():
        report.demand(
            uri == f"spiffe://{trust_domain}", "SPIFFE-ID 3.1", "it is the trust domain's own SVID", SHOULD
        )
    if now:
        report.demand(now <= ca.x509.not_valid_after_utc, "RFC 5280 6.1.3", "it has not expired", SHOULD)


def is_loadable(entry):
    try:
        load_key(entry)
    except (ValueError, KeyError, TypeError):
        return False
    return True


def main(arguments):
    """Check files from the command line; exit 1 when a MUST is broken."""
    kind, *paths = arguments
    texts = [Path(path).read_bytes() for path in paths]
    now = datetime.now(UTC)
    if kind == "bundle":
        report = check_bundle(texts[0], now)
    elif kind == "jwt":
        claims = json.loads(unpad(texts[0].decode().strip().split(".")[1]))
        audience = claims["aud"] if isinstance(claims["aud"], str) else claims["aud"][0]
        report = check_jwt_svid(
            texts[0].decode().strip(), texts[1], claims["sub"].split("/")[2], audience, now
        )
    else:
        chain, roots = ([c.public_bytes(_DER) for c in x509.load_pem_x509_certificates(t)] for t in texts)
        domain = Certificate(chain[0]).uris[0].split("/")[2]
        report = check_x509_svid(chain, roots, domain, now)
    for finding in report:
        print(f"{finding.level:6} {finding.clause}: not so: {finding.text}")
    return any(f.level == MUST for f in report)


if __name__ == "__main__":
    from cryptography.hazmat.primitives.serialization import Encoding

    _DER = Encoding.DER
    sys.exit(main(sys.argv[1:]))
