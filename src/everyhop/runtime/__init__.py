# SPDX-License-Identifier: Apache-2.0
"""Wiring: settings, composition, signals and supervision; the only place that builds real clocks and entropy."""
