# SPDX-License-Identifier: Apache-2.0
"""The one policy file: its language, its checks, its canonical form.

Bytes in, values out; no IO.  Whether a call is allowed is for ``authz`` to say; this room says what is
declared, and refuses every text that could be read in two ways.
"""

from everyhop.policy.codec import decode_snapshot, encode_snapshot
from everyhop.policy.model import (
    ANY,
    OUTSIDE,
    BodySchema,
    ClaimAttribute,
    Operation,
    PolicyTest,
    Protocol,
    Route,
    Rule,
    RuleEffect,
    Segment,
    SegmentKind,
    Selector,
    Service,
    Snapshot,
    TokenMode,
    UserIssuer,
    UserMode,
)
from everyhop.policy.parse import parse_policy

__all__ = [
    "ANY",
    "OUTSIDE",
    "BodySchema",
    "ClaimAttribute",
    "Operation",
    "PolicyTest",
    "Protocol",
    "Route",
    "Rule",
    "RuleEffect",
    "Segment",
    "SegmentKind",
    "Selector",
    "Service",
    "Snapshot",
    "TokenMode",
    "UserIssuer",
    "UserMode",
    "decode_snapshot",
    "encode_snapshot",
    "parse_policy",
]
