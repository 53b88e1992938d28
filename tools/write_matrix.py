# SPDX-License-Identifier: Apache-2.0
"""Write the matrix of targets into docs/reference/targets.md, between its marks."""

from pathlib import Path

from everyhop.targets.matrix_page import matrix_page

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "targets.md"
BEGIN, END = "<!-- matrix -->\n", "<!-- end of matrix -->"

before, _, rest = PAGE.read_text().partition(BEGIN)
PAGE.write_text(before + BEGIN + matrix_page() + END + rest.partition(END)[2])
