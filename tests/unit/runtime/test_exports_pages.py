# SPDX-License-Identifier: Apache-2.0
"""The pages about exports: every table parses, every key is named, the webhook's receiver verifies what is sent."""

import re
import tomllib
from pathlib import Path

import pytest
from tests.support.exported import item
from tests.support.receiver import Receiver

from everyhop.core.secret import Secret
from everyhop.exports import Format, WebhookSettings
from everyhop.exports.formats import renderer
from everyhop.exports.webhook import WebhookSink
from everyhop.runtime.export_settings import _COMMON, _KEYS, parse_exports
from everyhop.runtime.system import SystemClock

DOCS = Path(__file__).parents[3] / "docs"
GUIDE = (DOCS / "guides" / "exports.md").read_text()
REFERENCE = (DOCS / "reference" / "exports.md").read_text()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", blocks("toml"))
def test_every_table_of_the_guide_parses(block):
    (settings,) = parse_exports(tomllib.loads(block)["export"])
    assert settings.name


def test_every_key_is_in_the_reference():
    for key in {*_COMMON, *(key for keys in _KEYS.values() for key in keys)}:
        assert f"`{key}`" in REFERENCE, key


async def test_the_receiver_of_the_guide_believes_what_is_ours_and_nothing_else():
    space = {}
    exec(blocks("python")[0], space)
    is_ours = space["is_ours"]
    with Receiver() as receiver:
        settings = WebhookSettings(
            name="hook",
            format=Format.RECORD,
            batch=1,
            url=f"http://127.0.0.1:{receiver.port}/",
            secrets=(lambda: Secret(b"whsec_" + b"A" * 40), lambda: Secret(SECRET.encode())),
        )
        hook = WebhookSink(settings, renderer(Format.RECORD, origin=None), SystemClock())
        await hook.send([item(1)])
        await hook.close()
    (got,) = receiver.got
    assert not is_ours(got.headers, got.body + b" ", SECRET)
    assert not is_ours(got.headers, got.body, "whsec_" + "B" * 40)
    assert not is_ours({**got.headers, "webhook-timestamp": "1"}, got.body, SECRET)
    assert not is_ours({**got.headers, "webhook-id": "other"}, got.body, SECRET)
    assert is_ours(got.headers, got.body, SECRET)
    assert is_ours(got.headers, got.body, "whsec_" + "A" * 40)
