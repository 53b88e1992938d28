# SPDX-License-Identifier: Apache-2.0
"""Values that every room shares: errors, time, secrets, positions, decisions.  No IO, no dependencies."""
