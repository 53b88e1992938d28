# SPDX-License-Identifier: Apache-2.0
"""The policy file: parse, check and compile to a snapshot; no IO."""
