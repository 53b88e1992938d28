# SPDX-License-Identifier: Apache-2.0
"""Workload attestors: from a peer of a Unix socket to facts of its process."""

from everyhop.providers.attestors.digests import ExecutableDigests
from everyhop.providers.attestors.inspector import ProcInspector

__all__ = ["ExecutableDigests", "ProcInspector"]
