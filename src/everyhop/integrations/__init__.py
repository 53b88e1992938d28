# SPDX-License-Identifier: Apache-2.0
"""The SDK in the frameworks that applications are written in."""
