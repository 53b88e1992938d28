# SPDX-License-Identifier: Apache-2.0
"""npm's oidc-provider, started for a test, and a browser that signs in there."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import shutil
import socket
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx

PEER = Path(__file__).parents[1] / "peers" / "oidc"
SECRET = "a secret of this test only, and long enough"
API = "urn:shop:api"


def install() -> Path | str:
    """Return the directory of the installed peer, or why there is none.

    It is installed once into the user's cache, outside of the repository, by the exact versions of package.json.
    """
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        return "node and npm are not installed"
    digest = hashlib.sha256((PEER / "package.json").read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "everyhop" / "peers" / f"oidc-{digest}"
    if not (place / "installed").exists():
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(PEER / "package.json", place)
        command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            return f"npm could not install oidc-provider: {done.stderr.strip()[-200:]}"
        (place / "installed").touch()
    return place


class OidcProvider:
    """A running provider with keys of its own; a restart on the same port has new ones."""

    def __init__(self, place: Path, *, port: int | None = None, algorithm: str = "RS256", kid: str = "one"):
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        shutil.copy(PEER / "provider.mjs", place)
        self.process = subprocess.Popen(
            ["node", "provider.mjs", str(self.port), algorithm, kid],
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = ""
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
        assert self.process.stderr is not None
        raise AssertionError(f"the provider did not start: {line}{self.process.stderr.read()}")

    def sign_in(self, name: str, *, scope: str = "openid email roles", resource: str | None = None) -> dict:
        """Sign in as a person does, with the code flow and PKCE; return the token response."""
        verifier = secrets.token_urlsafe(40)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        question = {
            "client_id": "shop",
            "response_type": "code",
            "redirect_uri": f"{self.url}/callback",
            "scope": scope,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "nonce": "n",
        }
        exchange = {
            "grant_type": "authorization_code",
            "redirect_uri": f"{self.url}/callback",
            "code_verifier": verifier,
        }
        if resource is not None:
            question["resource"] = exchange["resource"] = resource
        with httpx.Client(trust_env=False) as browser:
            code = self._code(browser, name, question)
            answer = browser.post(f"{self.url}/token", data={**exchange, "code": code}, auth=("shop", SECRET))
            assert answer.status_code == 200, answer.text
            return answer.json()

    def _code(self, browser: httpx.Client, name: str, question: dict[str, str]) -> str:
        answer = browser.get(f"{self.url}/auth", params=question)
        for _ in range(12):
            if answer.is_redirect:
                target = urljoin(str(answer.url), answer.headers["location"])
                if target.startswith(f"{self.url}/callback"):
                    found = parse_qs(urlsplit(target).query)
                    assert "code" in found, found
                    return found["code"][0]
                answer = browser.get(target)
                continue
            action = re.search(r'<form[^>]*action="([^"]+)"', answer.text)
            assert action, answer.text
            prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
            fields = {"prompt": prompt[1] if prompt else "login", "login": name, "password": "x"}
            answer = browser.post(urljoin(str(answer.url), action[1]), data=fields)
        raise AssertionError("the sign-in does not end")

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=10)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
