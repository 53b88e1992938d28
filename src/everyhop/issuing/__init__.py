# SPDX-License-Identifier: Apache-2.0
"""Access tokens and transaction tokens: minted, exchanged, revoked; the keys that sign them."""
