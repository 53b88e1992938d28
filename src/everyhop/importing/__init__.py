# SPDX-License-Identifier: Apache-2.0
"""Other people's manifests to a policy: never wider than they are, with a list of what could not be carried over."""

from everyhop.importing.importing import ORIGINS, import_policy
from everyhop.importing.model import DEFAULT_METHODS, Fate, Imported, Part, Wishes

__all__ = ["DEFAULT_METHODS", "ORIGINS", "Fate", "Imported", "Part", "Wishes", "import_policy"]
