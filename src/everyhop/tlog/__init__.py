# SPDX-License-Identifier: Apache-2.0
"""Transparency logs as C2SP writes them down: trees, tiles, signed notes, proofs, the witness protocol.  Pure."""

__all__: list[str] = []
