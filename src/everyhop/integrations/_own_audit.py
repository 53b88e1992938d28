# SPDX-License-Identifier: Apache-2.0
"""The audit of this process's own workload, which everything uses that names no other."""

from __future__ import annotations

from typing import Final

from everyhop.integrations._audit import Audit

own_audit: Final = Audit()
