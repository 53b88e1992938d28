# SPDX-License-Identifier: Apache-2.0
"""Bounds that are not ours to choose and that several rooms must respect."""

from __future__ import annotations

from typing import Final

MAX_SOCKET_PATH_BYTES: Final = 107
"""Longest path of a Unix socket on Linux (``sun_path`` less its NUL)."""
