# SPDX-License-Identifier: Apache-2.0
"""Several callers in one transaction: who is answered, with what, and whose error is whose."""
