# SPDX-License-Identifier: Apache-2.0
"""A guard that remembers what it was asked, for the tests of what a glue hands to it."""

from __future__ import annotations

import pytest

from everyhop.sdk.model import Caller, Refusal, User, Verified
from everyhop.sdk.trace import new_trace

FRIEND = "spiffe://shop.example/service/storefront"


class AskedGuard:
    """Lets everything pass, or refuses with what the test puts into ``refusal`` and ``body_refusal``."""

    max_body = 100

    def __init__(self):
        self.requests = []
        self.bodies = []
        self.refusal = None
        self.body_refusal = None
        self.checks_body = False

    @property
    def request(self):
        return self.requests[-1]

    def check(self, request):
        if request.flaw is not None:
            raise Refusal(400, "AMBIGUOUS_PATH", request.flaw)
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        return Verified(
            caller=Caller(spiffe_id=FRIEND),
            user=User(subject="alice", txn="t-1"),
            operation="list",
            decision_id="d-1",
            snapshot="s",
            trace=new_trace(),
            checks_body=self.checks_body,
        )

    def check_body(self, verified, content_types, body):
        self.bodies.append((content_types, body))
        if len(body) > self.max_body:
            raise Refusal(413, "BODY_TOO_LARGE", "large", decision_id=verified.decision_id)
        if self.body_refusal is not None:
            raise self.body_refusal


@pytest.fixture
def guard():
    return AskedGuard()


@pytest.fixture
def refusal():
    return Refusal(
        401,
        "TOKEN_EXPIRED",
        "reason for operators",
        decision_id="d-2",
        challenge='Bearer realm="everyhop", error="invalid_token"',
    )


@pytest.fixture
def own_socket(tmp_path_factory):
    """The path of a Unix socket that somebody has bound, as a sidecar's application has."""
    import socket
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ehown") as directory:
        path = f"{directory}/app.sock"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            yield path
