# SPDX-License-Identifier: Apache-2.0
"""Providers: adapters to the systems that hold keys, attest workloads or keep secrets."""
