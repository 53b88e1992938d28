# SPDX-License-Identifier: Apache-2.0
"""A little OpenID provider for the example: discovery, keys, and a token for whoever asks by name.

    python3 issuer.py 9400
    curl -s 'http://127.0.0.1:9400/token?user=alice'

It believes everybody, so it is good for nothing else.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey

KEY = ECKey.generate_key("P-256", {"kid": "example", "use": "sig", "alg": "ES256"})


class Provider(BaseHTTPRequestHandler):
    """Answers GET."""

    def do_GET(self) -> None:
        """Give the discovery document, the keys or a token."""
        where = urlsplit(self.path)
        issuer = f"http://127.0.0.1:{self.server.server_address[1]}"
        if where.path == "/.well-known/openid-configuration":
            self.answer(json.dumps({"issuer": issuer, "jwks_uri": f"{issuer}/keys"}))
        elif where.path == "/keys":
            self.answer(json.dumps({"keys": [KEY.as_dict(private=False)]}))
        elif where.path == "/token":
            now = int(time.time())
            user = parse_qs(where.query).get("user", ["alice"])[0]
            claims = {"iss": issuer, "sub": user, "aud": "shop", "iat": now, "exp": now + 600}
            self.answer(jwt.encode({"alg": "ES256", "kid": "example"}, claims, KEY))
        else:
            self.send_error(404)

    def answer(self, text: str) -> None:
        """Send a body."""
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Provider).serve_forever()
