# SPDX-License-Identifier: Apache-2.0
"""What every test shares: the way tests are spread over workers, and where shared material is found.

Hypothesis runs without deadlines (the machine is shared), and as long as the profile says: ``EVERYHOP_EXAMPLES=2000``
searches longer.  Continuous integration tries the same examples each time, so that what fails there is the change.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.support.leftovers import collect_leftovers

settings.register_profile(
    "everyhop",
    max_examples=int(os.environ.get("EVERYHOP_EXAMPLES", "40")),
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("everyhop")

TESTS = Path(__file__).resolve().parent

# Whole matrices and guides: continuous integration runs them after the others, and `make test-long` does by hand.
LONG = (
    "e2e/test_app_decisions.py",
    "e2e/test_audit_guide.py",
    "e2e/test_authzen_page.py",
    "e2e/test_blocks.py",
    "e2e/test_canaries.py",
    "e2e/test_changes_guide.py",
    "e2e/test_completeness.py",
    "e2e/test_conditions.py",
    "e2e/test_decisions_guide.py",
    "e2e/test_demo.py",
    "e2e/test_exports.py",
    "e2e/test_foreign_proxies.py",
    "e2e/test_lifecycle.py",
    "e2e/test_log_proofs.py",
    "e2e/test_policy_changes.py",
    "e2e/test_postgresql.py",
    "e2e/test_spiffe_client.py",
    "e2e/test_three_hops.py",
    "e2e/test_tokens_guide.py",
    "e2e/test_tutorial.py",
    "integration/bypasses/",
    "integration/dataplane/test_differential_conditions.py",
    "integration/dataplane/test_shadow.py",
    "integration/log/",
    "integration/proxies/test_bypass_attempts.py",
)

# Tests on these shelves start processes in module fixtures; the runner keeps a file on one worker so that they start once.
HEAVY_SHELVES = ("integration", "conformance", "e2e")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the long ones."""
    for item in items:
        if item.path.relative_to(TESTS).as_posix().startswith(LONG):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="module", autouse=True)
def _no_leftovers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect at the end of a file what its servers have left, and not in the middle of a test of another one."""
    yield
    shelves = request.path.relative_to(TESTS).parts
    if {*HEAVY_SHELVES, "integrations", "sdk", "providers"} & set(shelves):
        collect_leftovers()


@pytest.fixture(scope="session")
def shared_material() -> Path:
    """The directory of schemas and corpora named by EVERYHOP_SHARED; the test is skipped without it."""
    named = os.environ.get("EVERYHOP_SHARED", "")
    if not named or not Path(named).is_dir():
        pytest.skip("EVERYHOP_SHARED does not name a directory")
    return Path(named).resolve()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory of its own whose path leaves room for the sockets of a state directory (107 bytes in all)."""
    path = Path(tempfile.mkdtemp(prefix="eh-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
