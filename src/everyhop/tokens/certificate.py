# SPDX-License-Identifier: Apache-2.0
"""The name of a certificate inside a token (RFC 8705 section 3.1)."""

from everyhop.x509.thumbprint import x5t_s256

__all__ = ["x5t_s256"]
