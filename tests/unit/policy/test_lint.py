# SPDX-License-Identifier: Apache-2.0
"""What a policy says correctly but probably does not mean."""

from __future__ import annotations

import pytest

from everyhop.policy import parse_policy
from everyhop.policy.lint import lint

HEAD = """\
version: 1
trust_domain: shop.example
services:
  shop: {workload: [{run: true}]}
  back: {workload: [{run: true}], operations: {read: GET /r, write: PUT /r}, probes: [GET /up]}
  base: {workload: [{run: true}], tcp: 5432}
"""
FINE = "allow: [{from: shop, to: back, operations: [read, write]}, {from: back, to: base}]\n"


def warnings(text: str) -> list[tuple[str, str]]:
    found = lint(parse_policy({"p.yaml": text.encode()}))
    assert all(": warning: " in problem.render() for problem in found)
    return [(problem.code, problem.message) for problem in found]


def test_a_policy_that_means_what_it_says():
    assert warnings(HEAD + FINE) == []
    assert warnings(HEAD + FINE + "deny: [{from: shop, to: back, operations: [write]}]\n") == [
        ("unreachable", "no service may call back.write")
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            HEAD,
            [
                ("unreachable", "no service may call back.read"),
                ("unreachable", "no service may call back.write"),
                ("unreachable", "no service may connect to 'base'"),
            ],
        ),
        (HEAD + FINE + "deny: [{from: any, to: back}]\n", [
            ("unreachable", "no service may call back.read"),
            ("unreachable", "no service may call back.write"),
            ("unreachable", "no service may call back.probes[0]"),
            ("shadowed", "allow[0] never decides: overruled by deny[0]"),
        ]),
        (HEAD + FINE + "deny: [{from: shop, to: any}, {from: shop, to: back, id: again}]\n", [
            ("unreachable", "no service may call back.read"),
            ("unreachable", "no service may call back.write"),
            ("shadowed", "allow[0] never decides: overruled by deny[0]"),
            ("redundant", "again never decides: deny[0] already says so"),
        ]),
        (
            HEAD + FINE.replace("]\n", ", {from: shop, to: back, operations: [read]}]\n"),
            [("redundant", "allow[2] never decides: allow[0] already says so")],
        ),
        (
            HEAD + FINE.replace("]\n", ", {from: any, to: back, operations: [read]}]\n"),
            [],
        ),
        (
            HEAD + FINE.replace("]\n", ", {from: [back], to: [back], operations: [read]}]\n"),
            [("self-call", "allow[2] lets 'back' call itself")],
        ),
        (
            HEAD + "  lone: {}\n" + FINE + "deny: [{from: any, to: lone}]\n",
            [
                ("no-workload", "service 'lone' has no workload, so no process can get its identity"),
                ("no-effect", "deny[0] concerns no door"),
            ],
        ),
        (
            HEAD + "  twin: {workload: [{unix: {uid: 7}}]}\n  other: {workload: [{unix: {uid: 7}}]}\n" + FINE,
            [("shared-workload", "a process with unix:uid:7 is 'other' as well as 'twin'")],
        ),
        (
            HEAD + "  odd: {workload: [{run: true}], operations: {a: GET /x/*, b: 'GET /x/:id', c: 'GET /a:b'}}\n"
            + FINE.replace("]\n", ", {from: shop, to: odd, operations: all}]\n"),
            [("literal", "odd.a: '*' matches only itself"), ("literal", "odd.b: ':id' matches only itself")],
        ),
    ],
)  # fmt: skip
def test_what_is_warned_about(text, expected):
    assert warnings(text) == expected


def test_a_policy_for_other_systems_needs_no_processes_of_ours():
    text = b"version: 1\ntrust_domain: a\nservices: {a: {operations: {x: GET /}}}\nallow: [{from: a, to: a, operations: [x]}]\n"
    assert "no-workload" in {p.code for p in lint(parse_policy({"p": text}))}
    assert "no-workload" not in {
        p.code for p in lint(parse_policy({"p": text + b"targets: {namespace: shop}\n"}))
    }
