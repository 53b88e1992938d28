# SPDX-License-Identifier: Apache-2.0
"""Which objects a cluster should not admit, and why: the rules that the webhook, the guard rails and Gatekeeper share."""
