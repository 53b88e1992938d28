# SPDX-License-Identifier: Apache-2.0
"""The policy compiled to other systems: pure functions from a snapshot to files, never wider than the policy."""

from everyhop.targets.compiling import compile_policy
from everyhop.targets.model import Compilation, Diagnostic, Feature, Fidelity, File

__all__ = ["Compilation", "Diagnostic", "Feature", "Fidelity", "File", "compile_policy"]
