# SPDX-License-Identifier: Apache-2.0
"""One module per command.  Each has ``add(commands)``, which declares it, and imports its needs when it runs."""

from __future__ import annotations

from everyhop.cli.verbs import (
    apikey,
    block,
    bundle,
    call,
    can,
    canary,
    demo,
    doctor,
    entry,
    envoy,
    init,
    keys,
    log,
    policy,
    processes,
    run,
    status,
    svid,
    token,
    up,
    version,
    why,
)

VERBS = (
    init,
    up,
    run,
    can,
    why,
    call,
    policy,
    status,
    log,
    svid,
    token,
    apikey,
    canary,
    block,
    keys,
    bundle,
    entry,
    envoy,
    doctor,
    demo,
    processes,
    version,
)
