# SPDX-License-Identifier: Apache-2.0
"""A policy file from what other systems enforce already, with what could not be carried over."""
