# SPDX-License-Identifier: Apache-2.0
"""Where the pods' template is in whatever makes pods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.manifests.model import Manifest

POD: Final = "Pod"
CRON_JOB: Final = "CronJob"
CONTROLLERS: Final = frozenset(
    {"DaemonSet", "Deployment", "Job", "ReplicaSet", "ReplicationController", "StatefulSet"}
)
"""Kinds of Kubernetes itself with the template at ``spec.template``."""


def template_path(kind: str) -> tuple[str, ...]:
    """Return the way to the object with ``metadata`` and ``spec`` of the pods; a Pod is that itself."""
    if kind == POD:
        return ()
    return ("spec", "jobTemplate", "spec", "template") if kind == CRON_JOB else ("spec", "template")


def template_of(manifest: Manifest, controllers: frozenset[str] = CONTROLLERS) -> Mapping[str, Any] | None:
    """Return the pods' template, None of what makes no pods; empty where it is missing or no mapping.

    ``controllers`` are the kinds that have it at ``spec.template``.
    """
    is_pod = manifest.kind == POD and not manifest.group
    if not is_pod and manifest.kind != CRON_JOB and manifest.kind not in controllers:
        return None
    return inner(manifest.document, *template_path(manifest.kind))


def inner(value: object, *keys: str) -> Mapping[str, Any]:
    """Return the mapping at the end of a way, empty where something is missing on it or is no mapping."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
