# SPDX-License-Identifier: Apache-2.0
"""An OIDC issuer on loopback that says whatever a test wants, signed by PyJWT, which the product does not use."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from tests.support.identity import NOW

from everyhop.core.problems import Span
from everyhop.policy.model import UserIssuer

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


def public_jwk(key, **more):
    """Return the public JWK of a private key."""
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **more}


class OidcIssuer:
    """Serves discovery and keys; counts requests.  ``answers`` replaces what stands at a path."""

    def __init__(self) -> None:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                owner.requests.append(self.path)
                time.sleep(owner.delay)
                status, headers, body = owner.answers.get(self.path, (404, {}, b"nothing here"))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True

            def log_message(self, *arguments):
                pass

        self.requests: list[str] = []
        self.delay = 0.0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.discovery = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        self.keys = [public_jwk(RSA, kid="r1", use="sig", alg="RS256"), public_jwk(EC, kid="e1", use="sig")]
        self.publish()

    def publish(self) -> None:
        """Put the documents in place."""
        self.put("/.well-known/openid-configuration", self.discovery)
        self.put("/keys", {"keys": self.keys})

    def put(self, path, document, status=200, **headers):
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.answers[path] = (status, headers, body)

    def policy(self, **changed) -> UserIssuer:
        """Return the issuer as a policy names it."""
        values = {
            "issuer": self.url,
            "audiences": ("shop", "shop-mobile"),
            "jwks": None,
            "roles": ("roles",),
            "algorithms": ("RS256", "ES256"),
            "span": Span(file="policy.yaml", line=1, column=1),
        }
        return UserIssuer(**{**values, **changed})

    def token(self, key=RSA, alg="RS256", kid="r1", header=None, **claims) -> str:
        """Sign a token; a claim of None is left out."""
        now = int(NOW.timestamp())
        values = {
            "iss": self.url,
            "sub": "alice",
            "aud": "shop",
            "iat": now,
            "exp": now + 3600,
            "roles": ["clerk"],
            **claims,
        }
        headers = {"kid": kid, **(header or {})}
        return jwt.encode(
            {name: value for name, value in values.items() if value is not None},
            key,
            algorithm=alg,
            headers={name: value for name, value in headers.items() if value is not None},
        )

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
