# SPDX-License-Identifier: Apache-2.0
"""Every example of the SDK's reference page runs."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "sdk.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_has_examples():
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example(example):
    exec(compile(example, str(PAGE), "exec"), {"__name__": "example"})


def test_every_public_name_of_the_sdk_is_on_the_page():
    import everyhop.sdk

    text = PAGE.read_text(encoding="utf-8")
    hidden = {"ContextSource", "Decided", "Issued", "JwtIdentity", "OUTSIDE", "OperationContext", "Target"}
    hidden |= {
        "TargetOperation",
        "TraceContext",
        "ValidatedJwt",
        "X509Identity",
        "X509Update",
        "find_operation",
    }
    hidden |= {"parse_trace"}
    missing = [name for name in everyhop.sdk.__all__ if name not in hidden and name not in text]
    assert missing == []
