# SPDX-License-Identifier: Apache-2.0
"""JOSE: keys, signatures and strict token profiles; no IO."""
