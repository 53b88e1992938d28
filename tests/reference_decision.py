# SPDX-License-Identifier: Apache-2.0
"""The decision a second time, written from the words of docs/reference/policy.md and sharing no line with src.

It works on the plain document, scans every rule and operation, and matches with regular expressions.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_to_bytes

UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


def is_clean(target: str, literals: str) -> bool:
    """Is the path clean, where ``literals`` are all characters of the service's literal segments?"""
    path = re.sub(r"\?.*", "", target, count=1, flags=re.DOTALL)
    if not re.fullmatch(r"/[\x21-\x7e]*", path) or re.search(r"[;\\#<>\"{}|^`]", path):
        return False
    if "//" in path or re.search(r"/\.{1,2}(/|$)", path):
        return False
    if re.search(r"%(?![0-9a-fA-F]{2})", path):
        return False
    for triplet in re.findall(r"%[0-9a-fA-F]{2}", path):
        decoded = unquote_to_bytes(triplet).decode("latin-1")
        if decoded < " " or decoded in "\x7f/\\%;" or decoded in UNRESERVED or decoded in literals:
            return False
    return True


def decide(document: dict[str, Any], caller: str, target: str, method: str, path: str) -> tuple[str, str]:
    """Return effect and reason."""
    services = document["services"]
    if target not in services:
        return "deny", "unknown-service"
    service = services[target]
    if "tcp" in service:
        return "deny", "wrong-protocol"
    doors = [(name, *_route(form)) for name, form in service.get("operations", {}).items()]
    doors += [(None, *_route(form)) for form in service.get("probes", [])]
    literals = "".join(s for _, _, t in doors for s in t.split("/") if not s.startswith("{"))
    if not is_clean(path, literals):
        return "deny", "ambiguous-path"
    path = path.split("?", maxsplit=1)[0]
    matching = [
        (_rank(t), name) for name, m, t in doors if m == method and re.fullmatch(_regex(t), path, re.DOTALL)
    ]
    if not matching:
        return "deny", "unknown-operation"
    name = min(matching, key=lambda found: found[0])[1]
    names = {f"spiffe://{document['trust_domain']}/service/{n}": n for n in services}
    if caller not in names:
        return "deny", "unknown-caller"
    return _judge(document, names[caller], target, name)


def decide_tcp(document: dict[str, Any], caller: str, target: str) -> tuple[str, str]:
    """Return effect and reason of a connection."""
    services = document["services"]
    if target not in services:
        return "deny", "unknown-service"
    if "tcp" not in services[target]:
        return "deny", "wrong-protocol"
    names = {f"spiffe://{document['trust_domain']}/service/{n}": n for n in services}
    if caller not in names:
        return "deny", "unknown-caller"
    for effect, reason in (("deny", "denied-by-rule"), ("allow", "allowed")):
        for rule in document.get(effect, []):
            doors = rule.get("operations")
            covers = rule["to"] != "any" or effect == "deny"
            covers = covers and (doors is None or (effect == "deny" and doors == "all"))
            if covers and _in(rule["to"], target) and _in(rule["from"], names[caller]):
                return effect, reason
    return "deny", "no-rule"


def _judge(document: dict[str, Any], caller: str, target: str, name: str | None) -> tuple[str, str]:
    for rule in document.get("deny", []):
        doors = rule.get("operations", "all")
        if _in(rule["from"], caller) and _in(rule["to"], target) and (doors == "all" or name in doors):
            return "deny", "denied-by-rule"
    if name is None:
        return "allow", "probe"
    for rule in document.get("allow", []):
        doors = rule.get("operations", [])
        if _in(rule["from"], caller) and _in(rule["to"], target) and (doors == "all" or name in doors):
            return "allow", "allowed"
    return "deny", "no-rule"


def _in(names: Any, name: str) -> bool:
    return names in {"any", name} if isinstance(names, str) else name in names


def _route(form: Any) -> tuple[str, str]:
    if isinstance(form, dict):
        if "grpc" in form:
            return "POST", "/" + form["grpc"]
        if "websocket" in form:
            return "GET", form["websocket"]
        form = form["route"]
    method, _, template = form.partition(" ")
    return method, template


def _regex(template: str) -> str:
    parts = []
    for segment in template.split("/"):
        if segment.endswith("...}"):
            parts.append(".*")
        else:
            parts.append("[^/]+" if segment.startswith("{") else re.escape(segment))
    return "/".join(parts)


def _rank(template: str) -> list[int]:
    return [2 if s.endswith("...}") else 1 if s.startswith("{") else 0 for s in template.split("/")]
