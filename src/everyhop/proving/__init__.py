# SPDX-License-Identifier: Apache-2.0
"""Whether what is enforced elsewhere is the policy: every kind of request asked of both, and what differs."""
