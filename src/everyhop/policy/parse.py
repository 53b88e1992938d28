# SPDX-License-Identifier: Apache-2.0
"""A policy text, or a directory of them, to a :class:`Snapshot`; every mistake with its position."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from everyhop.core.collector import collector_paused
from everyhop.core.errors import InputError
from everyhop.core.problems import Span
from everyhop.policy import _grammar as g
from everyhop.policy._attributes import AttributeReader
from everyhop.policy._audit import read_audit
from everyhop.policy._conditions import ConditionReader
from everyhop.policy._detect import DetectReader
from everyhop.policy._directory import DirectoryReader
from everyhop.policy._fields import is_written, read_fields, read_items, read_text
from everyhop.policy._nodes import Node, Text
from everyhop.policy._problems import Problems
from everyhop.policy._roles import RoleReader
from everyhop.policy._rules import RuleReader, read_mode
from everyhop.policy._services import Draft, build_services, read_services
from everyhop.policy._targets import TargetsReader
from everyhop.policy._tests import TestReader
from everyhop.policy._users import check_unique, read_users
from everyhop.policy._yaml import read_yaml
from everyhop.policy.canonical import content_hash, render_canonical
from everyhop.policy.model import Mode, Role, Rule, RuleEffect, Snapshot
from everyhop.spiffe.ids import TrustDomain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.policy.model import Edge
    from everyhop.policy.vocabulary import Attribute, Attributes

MAX_FILES: Final = 1000
MAX_TOTAL_BYTES: Final = 32 * 1024 * 1024

_Fields = dict[str, tuple[Text, Node]]


def parse_policy(files: Mapping[str, bytes]) -> Snapshot:
    """Parse the files of one policy, name to content, and return the checked whole.

    One file, or the files of a directory: services are unique across them, ``version`` stands in each,
    ``trust_domain`` and ``identity`` agree, and the lists are joined in the order of the file names.
    Beside others, names that end in ``.json`` are documents which operations refer to (``body``).
    At most 1000 files, 4 MiB each, 32 MiB together, in UTF-8.  The result is independent of key order,
    comments, formatting and (but for the order of rules) of the split into files.

    Raises PolicyError with all problems found (at most 200), in the order of the text.
    """
    with collector_paused():
        return _parse(files)


def _parse(files: Mapping[str, bytes]) -> Snapshot:
    problems = Problems()
    texts = {name: data for name, data in files.items() if not name.endswith(".json")} or dict(files)
    beside = {name: data for name, data in files.items() if name not in texts}
    documents = _read_files(texts, problems, len(files), sum(map(len, files.values())))
    if len(documents) < len(texts) or not documents:
        # A part is missing, and names that seem unknown may stand there: judge only what stands alone.
        for document in documents:
            services = dict(read_fields(document, g.TOP_KEYS, "policy", problems)).get("services")
            if services:
                read_services(services[1], beside, problems)
        problems.raise_if_any()
    return build_snapshot(documents, problems, beside)


def _read_files(files: Mapping[str, bytes], problems: Problems, count: int, size: int) -> list[Node]:
    if not files:
        problems.add("empty", Span(file="policy", line=1, column=1), "there is no policy file")
        return []
    if count > MAX_FILES or size > MAX_TOTAL_BYTES:
        message = f"a policy has at most {MAX_FILES} files and {MAX_TOTAL_BYTES} bytes"
        problems.add("too-large", Span(file=min(files), line=1, column=1), message)
        return []
    documents = (read_yaml(name, files[name], problems) for name in sorted(files))
    return [document for document in documents if document is not None]


def build_snapshot(
    documents: list[Node], problems: Problems, beside: Mapping[str, bytes] = MappingProxyType({})
) -> Snapshot:
    """Check documents (at least one) as one policy, with the JSON files beside them.  Raises PolicyError."""
    parts = [dict(read_fields(document, g.TOP_KEYS, "policy", problems)) for document in documents]
    for document, fields in zip(documents, parts, strict=True):
        _check_version(document, fields, problems)
    domain = _read_domain(parts, documents, problems)
    attributes = _read_attributes(parts, problems)
    drafts = _read_all_services(parts, beside, attributes.of("service"), problems)
    identity = _agreed("identity", parts, problems)
    services = build_services(drafts, domain, identity, problems) if domain else {}
    roles = _read_roles(parts, drafts, problems)
    rules, edges = _read_rules(parts, drafts, attributes, problems)
    directory = DirectoryReader(drafts, roles, attributes, problems)
    for node in _parts("directory", parts):
        directory.read(node)
    tester = TestReader(drafts, attributes, directory, problems)
    tests = [tester.test(node, index) for index, node in enumerate(_entries("tests", parts, problems))]
    users = attributes.of("user")
    issuers = [issuer for node in _parts("users", parts) for issuer in read_users(node, problems, users)]
    check_unique(issuers, problems)
    mode = _read_mode(parts, problems)
    detection = DetectReader(drafts, services, problems).read(_parts("detect", parts))
    readers = read_audit(_parts("audit", parts), drafts, problems)
    targets = TargetsReader(drafts, problems).read(_parts("targets", parts))
    if not drafts and problems.is_empty:
        problems.add("missing-key", documents[0].span, "policy: no service is declared", "add services:")
    problems.raise_if_any()
    assert domain is not None  # noqa: S101  # a missing domain is a problem, raised above
    snapshot = Snapshot(
        trust_domain=domain,
        services=services,
        rules=rules,
        tests=tuple(test for test in tests if test),
        user_issuers=tuple(issuers),
        mode=mode,
        roles=MappingProxyType(roles),
        attributes=attributes,
        shadow_edges=edges,
        directory=directory.directory,
        detection=detection,
        readers=readers,
        targets=targets,
        canonical=b"",
        hash="",
    )
    canonical = render_canonical(snapshot)
    return replace(snapshot, canonical=canonical, hash=content_hash(canonical))


def _parts(key: str, parts: list[_Fields]) -> list[Node]:
    return [fields[key][1] for fields in parts if key in fields]


def _read_mode(parts: list[_Fields], problems: Problems) -> Mode:
    agreed = _agreed("mode", parts, problems)
    return Mode.ENFORCE if agreed is None else read_mode(_parts("mode", parts)[0], "mode", problems)


def _read_attributes(parts: list[_Fields], problems: Problems) -> Attributes:
    reader = AttributeReader(problems)
    for node in _parts("attributes", parts):
        reader.read(node)
    return reader.attributes


def _read_roles(parts: list[_Fields], drafts: dict[str, Draft], problems: Problems) -> dict[str, Role]:
    reader = RoleReader(drafts, problems)
    for node in _parts("roles", parts):
        reader.read(node)
    return reader.finish()


def _check_version(document: Node, fields: _Fields, problems: Problems) -> None:
    if "version" not in fields:
        if not is_written("version", document):
            problems.add(
                "missing-key", document.span, "policy: 'version' missing", "start the file with version: 1"
            )
        return
    node = fields["version"][1]
    text = read_text(node, "version", problems)
    if text is not None and text != g.VERSION:
        message = f"version {text[:20]!r} of the policy language is not known here"
        problems.add("version", node.span, message, f"this everyhop reads version {g.VERSION}")


def _agreed(key: str, parts: list[_Fields], problems: Problems) -> tuple[str, Span] | None:
    """Return the one text that the files give for a key; another text in another file is noted."""
    agreed: tuple[str, Span] | None = None
    for fields in parts:
        if key not in fields:
            continue
        node = fields[key][1]
        text = read_text(node, key, problems)
        if text is None:
            continue
        if agreed is None:
            agreed = text, node.span
        elif agreed[0] != text:
            message = f"{key} is {text[:80]!r} here, but {agreed[0][:80]!r} at {agreed[1]}"
            problems.add("conflict", node.span, message, "the files of one policy agree")
    return agreed


def _read_domain(parts: list[_Fields], documents: list[Node], problems: Problems) -> TrustDomain | None:
    agreed = _agreed("trust_domain", parts, problems)
    if agreed is None:
        if not any(is_written("trust_domain", document) for document in documents):
            hint = "for example trust_domain: shop.example"
            problems.add("missing-key", documents[0].span, "policy: 'trust_domain' missing", hint)
        return None
    text, span = agreed
    try:
        domain = TrustDomain.parse(text)
        if domain.name != text:
            raise InputError("a trust domain is written in lower case", hint=f"write {domain.name}")
    except InputError as error:
        problems.add("trust-domain", span, f"trust_domain: {error.message}", error.hint)
        return None
    return domain


def _read_all_services(
    parts: list[_Fields],
    beside: Mapping[str, bytes],
    attributes: Mapping[str, Attribute],
    problems: Problems,
) -> dict[str, Draft]:
    drafts: dict[str, Draft] = {}
    for node in _parts("services", parts):
        for name, draft in read_services(node, beside, problems, attributes).items():
            first = drafts.setdefault(name, draft)
            if first is not draft:
                message = f"service {name!r} is declared twice"
                problems.add("duplicate", draft.span, message, f"first at {first.span}")
    return drafts


def _read_rules(
    parts: list[_Fields], drafts: dict[str, Draft], attributes: Attributes, problems: Problems
) -> tuple[tuple[Rule, ...], tuple[Edge, ...]]:
    reader = RuleReader(drafts, ConditionReader(drafts, attributes, problems), problems)
    rules: list[Rule | None] = []
    for effect in (RuleEffect.ALLOW, RuleEffect.DENY):
        entries = _entries(effect.value, parts, problems)
        rules += [reader.rule(node, effect, index) for index, node in enumerate(entries)]
    edges = [reader.edge(node, index) for index, node in enumerate(_entries("shadow", parts, problems))]
    return tuple(rule for rule in rules if rule), tuple(edge for edge in edges if edge)


def _entries(key: str, parts: list[_Fields], problems: Problems) -> list[Node]:
    return [item for node in _parts(key, parts) for item in read_items(node, key, problems)]
