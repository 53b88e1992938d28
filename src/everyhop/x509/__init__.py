# SPDX-License-Identifier: Apache-2.0
"""X.509: names, certificate requests, templates and chains; no IO."""
