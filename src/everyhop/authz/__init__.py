# SPDX-License-Identifier: Apache-2.0
"""Authorization: decides one request against a snapshot, and explains the decision; no IO."""
