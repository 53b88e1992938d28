# SPDX-License-Identifier: Apache-2.0
"""A program that buys something for a user: ``python3 shopper.py TOKEN`` prints what each hop has seen."""

import sys

from everyhop.integrations.httpx import client

with client() as http:
    answer = http.post("http://storefront/checkout", headers={"Authorization": f"Bearer {sys.argv[1]}"})
    print("\n".join(answer.json()) if answer.is_success else answer.text)
