# SPDX-License-Identifier: Apache-2.0
"""The command line: parses arguments, calls the other rooms and prints; it decides nothing."""
