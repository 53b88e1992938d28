# SPDX-License-Identifier: Apache-2.0
"""Where the webhook is, and how much it reads: what its door, the face and its configuration agree on."""

from __future__ import annotations

from typing import Final

PATH: Final = "/admission/validate"
MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""Two objects of what a cluster stores at most (1.5 MiB), with room for how JSON writes them."""
