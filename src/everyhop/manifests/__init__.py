# SPDX-License-Identifier: Apache-2.0
"""Kubernetes objects as other people or we wrote them: read strictly, with their places, changed by nobody."""

from everyhop.manifests.model import Manifest, Manifests
from everyhop.manifests.reading import read_manifests

__all__ = ["Manifest", "Manifests", "read_manifests"]
