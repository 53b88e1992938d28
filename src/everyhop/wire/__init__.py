# SPDX-License-Identifier: Apache-2.0
"""Generated protocol stubs."""
