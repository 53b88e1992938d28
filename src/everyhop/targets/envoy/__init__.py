# SPDX-License-Identifier: Apache-2.0
"""Envoy by itself: a static bootstrap for each service, for those who run Envoy without a control plane."""

from everyhop.targets.envoy.compiling import TARGET

__all__ = ["TARGET"]
