# SPDX-License-Identifier: Apache-2.0
"""Zero trust for services: identity, mutual TLS and default-deny authorization on every hop.

Importing this package is cheap: it loads neither a database layer nor a web framework. Import the room
you need (``everyhop.policy``, ``everyhop.spiffe``) for anything more than the version.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
