# SPDX-License-Identifier: Apache-2.0
"""The documentation shows the matrix that the compilers follow, and every option that the policy may have."""

from pathlib import Path

from everyhop.targets.matrix_page import matrix_page

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "targets.md"


def test_the_page_shows_the_matrix_as_it_is():
    _, _, rest = PAGE.read_text().partition("<!-- matrix -->\n")
    shown, end, _ = rest.partition("<!-- end of matrix -->")
    assert end
    assert shown == matrix_page()
