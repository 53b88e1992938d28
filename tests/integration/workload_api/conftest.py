# SPDX-License-Identifier: Apache-2.0
import os
import tempfile
from pathlib import Path

import pytest
from tests.support.agent_under_test import AgentUnderTest

MINE = f"[{{unix: {{uid: {os.getuid()}}}}}]"


@pytest.fixture
def directory():
    """A short directory that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="eh-") as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


@pytest.fixture
def agent(directory):
    """An agent whose policy gives this user's processes the service orders."""
    with AgentUnderTest(directory) as running:
        running.apply({"orders": MINE})
        yield running
