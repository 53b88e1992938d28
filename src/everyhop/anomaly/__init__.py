# SPDX-License-Identifier: Apache-2.0
"""Abuse, as it shows in the log: what is counted, what is suspicious, who is blocked.  Pure."""

from everyhop.anomaly.model import Block, BlockMode, Blocks, Subject, SubjectKind

__all__ = ["Block", "BlockMode", "Blocks", "Subject", "SubjectKind"]
