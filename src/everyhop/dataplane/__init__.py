# SPDX-License-Identifier: Apache-2.0
"""The data plane: configures and supervises the proxies, and serves them keys."""
