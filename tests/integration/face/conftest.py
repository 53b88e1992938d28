# SPDX-License-Identifier: Apache-2.0
"""One face for the tests that only ask; those that break things start their own."""

import pytest
from tests.support.face_under_test import FaceUnderTest


@pytest.fixture(scope="module")
def face():
    with FaceUnderTest(api_names=("auth.shop.example",)) as started:
        yield started
