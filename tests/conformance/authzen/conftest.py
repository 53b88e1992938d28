# SPDX-License-Identifier: Apache-2.0
"""The endpoints as the checks see them."""

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from tests.support.authzen_under_test import authzen_under_test

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def serve():
    """Serve policies until the end of the file; each call gives the endpoints over one."""
    with contextlib.ExitStack() as stack:

        def start(policy):
            directory = Path(tempfile.mkdtemp(prefix="eh-"))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            return stack.enter_context(authzen_under_test(policy, directory))

        yield start
