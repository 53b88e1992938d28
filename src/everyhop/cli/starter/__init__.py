# SPDX-License-Identifier: Apache-2.0
"""The files that ``everyhop init`` writes; data, not code of ours that runs."""
