# SPDX-License-Identifier: Apache-2.0
"""The command line: one module per noun under ``verbs``, imported lazily."""
