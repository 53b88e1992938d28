# SPDX-License-Identifier: Apache-2.0
"""The policy as CiliumNetworkPolicies (``cilium.io/v2``)."""

from typing import Final

from everyhop.targets.cilium.compiler import Cilium
from everyhop.targets.model import Target

__all__ = ["TARGET"]

TARGET: Final[Target] = Cilium()
"""The target as :mod:`everyhop.targets.compiling` finds it."""
