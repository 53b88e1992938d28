# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the tests of applications that use the SDK."""
