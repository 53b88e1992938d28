# SPDX-License-Identifier: Apache-2.0
"""What a token of everyhop is, and how it is verified: one profile, no IO (RFC 9068, RFC 8725)."""
