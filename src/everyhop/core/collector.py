# SPDX-License-Identifier: Apache-2.0
"""Python's cyclic garbage collector, out of the way while one large tree without cycles is built.

The collector runs by the number of new containers: building a million of them that all stay makes it walk the
growing tree again and again and find nothing, which was half of the time that a policy of 10,000 services took.
Reference counting goes on as ever; what waits is only garbage in cycles, until the tree is complete.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the collector from running inside the block; for bounded work only.

    Whoever found it running starts it again, so blocks may nest, and overlap in threads: then it runs
    earlier than the last block ends, never not at all.  A collector that the program has switched off stays off.
    """
    was_running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_running:
            gc.enable()
