# SPDX-License-Identifier: Apache-2.0
"""The guided tour: real services and real attacks, expected against seen."""
