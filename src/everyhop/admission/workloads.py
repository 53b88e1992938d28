# SPDX-License-Identifier: Apache-2.0
"""Rules about workloads: no token and no secret where every library of the process can read it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from everyhop.admission.model import WORKLOADS, Code, Document, Kinds, Rule, items, mapping
from everyhop.manifests.pods import template_path

if TYPE_CHECKING:
    from collections.abc import Iterator

SENSITIVE_NAME: Final = r"(?i)(PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY|CREDENTIALS?)($|_)"
"""Names of environment variables whose literal values are secrets (RE2 syntax, searched for)."""
CONTAINERS: Final = ("initContainers", "containers", "ephemeralContainers")
_SECRET: Final = re.compile(SENSITIVE_NAME)


def pod_of(document: Document) -> tuple[str, dict[str, Any]]:
    """Return the pod's spec of whatever makes pods, with its path."""
    steps = (*template_path(str(document.get("kind"))), "spec")
    value: object = document
    for index, step in enumerate(steps):
        value = mapping(value, ".".join(steps[:index])).get(step)
    path = ".".join(steps)
    return path, mapping(value, path)


def _automounted(document: Document) -> Iterator[tuple[str, str]]:
    if document.get("kind") == "ServiceAccount":
        if document.get("automountServiceAccountToken") is not False:
            yield "automountServiceAccountToken", "every pod gets a token for the cluster's API; write false"
        return
    path, pod = pod_of(document)
    if pod.get("automountServiceAccountToken") is True:
        yield (
            f"{path}.automountServiceAccountToken",
            "the pod gets a token for the cluster's API; write false",
        )


def _secret_in_env(document: Document) -> Iterator[tuple[str, str]]:
    path, pod = pod_of(document)
    for kind in CONTAINERS:
        for index, container in enumerate(items(pod.get(kind), f"{path}.{kind}")):
            where = f"{path}.{kind}[{index}]"
            fields = mapping(container, where)
            for place, variable in enumerate(items(fields.get("env"), f"{where}.env")):
                yield from _of_variable(mapping(variable, where), f"{where}.env[{place}]")
            for place, source in enumerate(items(fields.get("envFrom"), f"{where}.envFrom")):
                if mapping(source, where).get("secretRef") is not None:
                    yield (
                        f"{where}.envFrom[{place}]",
                        "a secret as environment; mount it, or fetch it when needed",
                    )


def _of_variable(variable: Document, where: str) -> Iterator[tuple[str, str]]:
    if mapping(variable.get("valueFrom"), where).get("secretKeyRef") is not None:
        yield where, "a secret as environment; mount it, or fetch it when needed"
    elif variable.get("value") and _SECRET.search(str(variable.get("name", ""))):
        yield where, "a secret written into the manifest"


WORKLOAD_RULES: Final = (
    Rule(
        Code.AUTOMOUNTED_TOKEN,
        "no token of the cluster's API in pods that do not ask for it",
        (Kinds("", {"ServiceAccount": "serviceaccounts", "Pod": "pods"}), *WORKLOADS[1:]),
        _automounted,
    ),
    Rule(Code.SECRET_IN_ENV, "no secret in an environment variable", WORKLOADS, _secret_in_env),
)
