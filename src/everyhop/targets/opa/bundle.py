# SPDX-License-Identifier: Apache-2.0
"""The files of a bundle: ``.manifest``, ``data.json``, the rules, their tests, and the way in for OPA's Envoy plugin."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from everyhop.policy.vocabulary import HEADERS
from everyhop.targets.model import File
from everyhop.targets.objects import header
from everyhop.targets.opa.conditions import facts_of
from everyhop.targets.opa.envoy import ENVOY
from everyhop.targets.opa.rego import BASE, WITH_CONDITIONS, WITHOUT_CONDITIONS
from everyhop.targets.opa.testing import test_module

if TYPE_CHECKING:
    from everyhop.targets.opa.data import Facts
    from everyhop.targets.view import View


def bundle_files(view: View, facts: Facts) -> list[File]:
    """Return the files, below ``opa/``."""
    package = view.option("package")
    root = package.replace(".", "/")
    manifest = {
        "revision": view.intents.snapshot.hash,
        "roots": [root, f"{root}_envoy", f"{root}_test"],
        "rego_version": 1,
        "metadata": {"generated_by": "everyhop; do not edit"},
    }
    head = "".join(f"# {line}\n" for line in header(view))
    texts = {
        ".manifest": _json(manifest),
        "data.json": _json(_nested(package, {"policy": facts.document})),
        "policy.rego": head + _policy(package, facts),
        "envoy.rego": head + ENVOY.replace("PACKAGE", package),
        "policy_test.rego": head + test_module(view, facts, package),
    }
    return [File(path=f"opa/{name}", content=text.encode()) for name, text in texts.items()]


def _policy(package: str, facts: Facts) -> str:
    lines = [f"package {package}", "", f"import data.{package}.policy", BASE.rstrip("\n")]
    if not facts.conditions:
        return "\n".join((*lines, WITHOUT_CONDITIONS))
    lines.append(WITH_CONDITIONS)
    reads = {name for one in facts.conditions.values() for name in one.reads} - {HEADERS}
    if not reads:
        lines.append("facts := {}")
    lines += facts_of(reads)
    for name, one in facts.conditions.items():
        lines += ["", *(f"# {line}" for line in one.text.splitlines()), *one.rules]
        lines += [f'is_true("{name}") if {name}_true', f'is_false("{name}") if {name}_false']
    return "\n".join((*lines, ""))


def _nested(package: str, value: dict[str, Any]) -> dict[str, Any]:
    for name in reversed(package.split(".")):
        value = {name: value}
    return value


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
