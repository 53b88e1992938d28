# SPDX-License-Identifier: Apache-2.0
"""The control plane's use cases: the policy in force, what agents are told, rotation, records."""
