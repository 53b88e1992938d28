# SPDX-License-Identifier: Apache-2.0
"""The guided tour: real services and real attacks, expected against seen.

Nothing here is part of the product's defences; it stands outside and pokes at them, with the rights of the owner of a
state directory where an attack needs more than an attacker would have.
"""

from everyhop.demo.tour import run_demo

__all__ = ["run_demo"]
