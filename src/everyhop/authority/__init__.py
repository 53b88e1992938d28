# SPDX-License-Identifier: Apache-2.0
"""The authority: issues, renews and rotates what workloads identify themselves with."""
