# SPDX-License-Identifier: Apache-2.0
"""The agent: attests workloads on one node and keeps what they need fresh."""
