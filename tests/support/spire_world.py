# SPDX-License-Identifier: Apache-2.0
"""A small policy as the compilers of identities see it."""

from __future__ import annotations

from everyhop.policy import parse_policy
from everyhop.targets.compiling import compile_policy

POLICY = """
version: 1
trust_domain: shop.example
services:
  checkout: {operations: {x: GET /}}
  payments: {operations: {charge: POST /charge}, identity: /billing/payments}
  ledger:
    workload:
      - {unix: {user: ledger, path: /usr/bin/ledger}}
      - {unix: {uid: 1000}}
    operations: {write: POST /}
  trap: {canary: true}
allow:
  - {from: checkout, to: payments, operations: all}
targets:
  namespace: shop
  services:
    payments: {namespace: billing, service_account: pay, labels: {app: payments, tier: back}}
"""


def compiled(target, options="", policy=POLICY):
    """Return the compilation of the policy with further lines of the chapter targets (indented by two)."""
    (found,) = compile_policy(parse_policy({"everyhop.yaml": (policy + options).encode()}), [target])
    return found


def file_of(compilation, path):
    """Return the text of a file."""
    return next(one.content.decode() for one in compilation.files if one.path == path)


def codes(compilation):
    """Return the codes of the diagnostics, sorted."""
    return sorted(one.code for one in compilation.diagnostics)
