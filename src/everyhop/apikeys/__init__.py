# SPDX-License-Identifier: Apache-2.0
"""Keys for clients outside of the trust domain: shown once, stored as a MAC, exchanged at the edge."""
