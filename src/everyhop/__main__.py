# SPDX-License-Identifier: Apache-2.0
"""``python -m everyhop``."""

import sys

from everyhop.cli.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
