# SPDX-License-Identifier: Apache-2.0
"""What an application gets: its identity, its tokens, who calls it and for whom."""
