# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the tests of applications that use the SDK: real keys, real tokens, a real socket, nothing mocked.

``everyhop.testing.pytest_plugin`` offers them to pytest; it is not loaded by itself.
"""

from everyhop.testing.agent import FakeAgent
from everyhop.testing.authority import Authority, FixedX509Source
from everyhop.testing.contexts import context_document, service_context, verified_call
from everyhop.testing.issuer import Issuer

__all__ = [
    "Authority",
    "FakeAgent",
    "FixedX509Source",
    "Issuer",
    "context_document",
    "service_context",
    "verified_call",
]
