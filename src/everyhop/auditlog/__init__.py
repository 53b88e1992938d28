# SPDX-License-Identifier: Apache-2.0
"""The audit log: sealed, append-only records of every decision and change; no IO."""
