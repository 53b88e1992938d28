# SPDX-License-Identifier: Apache-2.0
"""Connections that a server's loop leaves behind when it ends while TLS still says good-bye.

They are closed when they are collected, with a warning, which must not hit whatever test runs at that moment.
"""

import gc
import warnings


def collect_leftovers() -> None:
    """Collect now what an ended server has left, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
