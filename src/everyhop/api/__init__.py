# SPDX-License-Identifier: Apache-2.0
"""The control plane's HTTP interface: decodes, calls, maps errors to problem documents."""
