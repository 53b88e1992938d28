# SPDX-License-Identifier: Apache-2.0
"""Read by mypy, never run: what a program that uses everyhop may rely on about its types."""

from typing import assert_type

import everyhop

assert_type(everyhop.__version__, str)
