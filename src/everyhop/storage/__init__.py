# SPDX-License-Identifier: Apache-2.0
"""Storage: SQLAlchemy Core tables and one repository per room that keeps state."""
