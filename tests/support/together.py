# SPDX-License-Identifier: Apache-2.0
"""Many threads that begin at the same moment."""

import threading


def together(calls):
    """Run every call in a thread of its own, started at once; return what they gave or raised."""
    barrier = threading.Barrier(len(calls))
    results = [None] * len(calls)

    def run(place, call):
        barrier.wait()
        try:
            results[place] = call()
        except Exception as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
