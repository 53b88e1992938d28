# SPDX-License-Identifier: Apache-2.0
"""A SPIRE server and an agent on each node.

The server keeps its state on a volume and runs as nobody in particular.  The agent has to see the processes of the node (``hostPID``,
the node's network for the kubelet) and nothing else: no capabilities, a file system that cannot be written, and one directory of the
node for its socket, which workloads mount **read-only**.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from everyhop.targets.objects import obj, yaml_file
from everyhop.targets.spire import configuration as conf
from everyhop.targets.yaml import Document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from everyhop.targets.model import File
    from everyhop.targets.view import View

_RBAC: Final = "rbac.authorization.k8s.io"
_USER: Final = 10001
_TOKEN_SECONDS: Final = 7200
_SERVER_LABELS: Final = {"app": conf.SERVER}
_AGENT_LABELS: Final = {"app": conf.AGENT}
_LOCKED: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
MOUNT: Final = (
    f"a workload mounts {conf.SOCKETS} of its node as hostPath with readOnly: true; pod security that forbids hostPath",
    "needs the SPIFFE CSI driver instead",
)


def server(view: View) -> File:
    """Return ``spire/server.yaml``."""
    return yaml_file(view, "spire/server.yaml", list(_server(view)))


def agent(view: View) -> File:
    """Return ``spire/agent.yaml``."""
    return yaml_file(view, "spire/agent.yaml", list(_agent(view)), *MOUNT)


def _server(view: View) -> Iterator[Document]:
    place = view.option("namespace")
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}  # the agents' hostPID and hostPath
    yield Document(obj(view, "v1", "Namespace", place, None, None, labels=labels))
    yield Document(_account(view, conf.SERVER))
    rules = [
        _rule("authentication.k8s.io", "tokenreviews", "create"),
        _rule("", "pods", "get"),
        _rule("", "nodes", "get"),
    ]
    yield Document(_role(view, conf.SERVER, rules), ("what k8s_psat asks the API server for",))
    yield Document(_binding(view, conf.SERVER))
    bundle = [_rule("", "configmaps", "get", "patch") | {"resourceNames": [conf.BUNDLE]}]
    yield Document(_role(view, conf.SERVER, bundle, place), ("the bundle is published there",))
    yield Document(_binding(view, conf.SERVER, place))
    yield Document(obj(view, "v1", "ConfigMap", conf.BUNDLE, place, None))
    held = {"server.conf": conf.server_conf(view)}
    yield Document(obj(view, "v1", "ConfigMap", conf.SERVER, place, None, data=held))
    ports = [{"name": "grpc", "port": conf.PORT, "targetPort": conf.PORT, "protocol": "TCP"}]
    yield Document(
        obj(view, "v1", "Service", conf.SERVER, place, {"selector": _SERVER_LABELS, "ports": ports})
    )
    note = "one replica, as SQLite has it: several need a database of their own and KeyManager aws_kms or the like"
    yield Document(obj(view, "apps/v1", "StatefulSet", conf.SERVER, place, _stateful_set(view)), (note,))


def _stateful_set(view: View) -> dict[str, Any]:
    container = {
        "name": conf.SERVER,
        "image": _image(view, conf.SERVER),
        "args": ["-config", "/run/spire/config/server.conf"],
        "ports": [
            {"name": "grpc", "containerPort": conf.PORT, "protocol": "TCP"},
            {"name": "health", "containerPort": conf.HEALTH, "protocol": "TCP"},
        ],
        **_probes(conf.HEALTH),
        "resources": _resources("512Mi"),
        "securityContext": {**_LOCKED, "runAsNonRoot": True, "runAsUser": _USER, "runAsGroup": _USER},
        "volumeMounts": [
            {"name": "config", "mountPath": "/run/spire/config", "readOnly": True},
            {"name": "data", "mountPath": conf.DATA},
            {"name": "socket", "mountPath": "/run/spire/server/private"},
        ],
    }
    pod = {
        "serviceAccountName": conf.SERVER,
        "securityContext": {"fsGroup": _USER},
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": conf.SERVER}},
            {"name": "socket", "emptyDir": {"medium": "Memory"}},
        ],
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    return {
        "replicas": 1,
        "serviceName": conf.SERVER,
        "selector": {"matchLabels": _SERVER_LABELS},
        "template": {"metadata": _pod_metadata(_SERVER_LABELS, conf.server_conf(view)), "spec": pod},
        "volumeClaimTemplates": [claim],
    }


def _agent(view: View) -> Iterator[Document]:
    place = view.option("namespace")
    yield Document(_account(view, conf.AGENT))
    rules = [_rule("", "pods", "get"), _rule("", "nodes", "get"), _rule("", "nodes/proxy", "get")]
    yield Document(_role(view, conf.AGENT, rules), ("the kubelet lets it list the pods of its node",))
    yield Document(_binding(view, conf.AGENT))
    held = {"agent.conf": conf.agent_conf(view)}
    yield Document(obj(view, "v1", "ConfigMap", conf.AGENT, place, None, data=held))
    yield Document(obj(view, "apps/v1", "DaemonSet", conf.AGENT, place, _daemon_set(view)))


def _daemon_set(view: View) -> dict[str, Any]:
    container = {
        "name": conf.AGENT,
        "image": _image(view, conf.AGENT),
        "args": ["-config", "/run/spire/config/agent.conf"],
        "env": [{"name": "MY_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        **_probes(conf.AGENT_HEALTH, "127.0.0.1"),
        "resources": _resources("256Mi"),
        "securityContext": {**_LOCKED, "runAsUser": 0},  # the directory of the node is root's
        "volumeMounts": [
            {"name": "config", "mountPath": "/run/spire/config", "readOnly": True},
            {"name": "bundle", "mountPath": conf.BUNDLE_PLACE, "readOnly": True},
            {"name": "token", "mountPath": "/var/run/secrets/tokens", "readOnly": True},
            {"name": "data", "mountPath": conf.DATA},
            {"name": "sockets", "mountPath": conf.SOCKETS},
        ],
    }
    source = {
        "serviceAccountToken": {
            "path": conf.AGENT,
            "expirationSeconds": _TOKEN_SECONDS,
            "audience": conf.SERVER,
        }
    }
    pod = {
        "serviceAccountName": conf.AGENT,
        "hostPID": True,
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": conf.AGENT}},
            {"name": "bundle", "configMap": {"name": conf.BUNDLE}},
            {"name": "token", "projected": {"sources": [source]}},
            {"name": "data", "emptyDir": {"medium": "Memory"}},
            {"name": "sockets", "hostPath": {"path": conf.SOCKETS, "type": "DirectoryOrCreate"}},
        ],
    }
    return {
        "selector": {"matchLabels": _AGENT_LABELS},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
        "template": {"metadata": _pod_metadata(_AGENT_LABELS, conf.agent_conf(view)), "spec": pod},
    }


def _pod_metadata(labels: Mapping[str, str], configuration: str) -> dict[str, Any]:
    """A pod reads its configuration once, so another configuration is another pod."""
    digest = hashlib.sha256(configuration.encode()).hexdigest()[:16]
    return {"labels": dict(labels), "annotations": {"everyhop/configuration": digest}}


def _account(view: View, name: str) -> dict[str, Any]:
    return obj(view, "v1", "ServiceAccount", name, view.option("namespace"), None)


def _rule(group: str, resource: str, *verbs: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}


def _role(
    view: View, name: str, rules: list[dict[str, Any]], namespace: str | None = None
) -> Mapping[str, Any]:
    kind = "ClusterRole" if namespace is None else "Role"
    return obj(view, f"{_RBAC}/v1", kind, name, namespace, None, rules=rules)


def _binding(view: View, name: str, namespace: str | None = None) -> Mapping[str, Any]:
    kind = "ClusterRole" if namespace is None else "Role"
    subject = {"kind": "ServiceAccount", "name": name, "namespace": view.option("namespace")}
    reference = {"apiGroup": _RBAC, "kind": kind, "name": name}
    return obj(
        view, f"{_RBAC}/v1", f"{kind}Binding", name, namespace, None, roleRef=reference, subjects=[subject]
    )


def _image(view: View, name: str) -> str:
    prefix = str(view.option("images")).rstrip("/")
    return f"{prefix}/{name}:{view.option('version')}" if prefix else f"{name}:{view.option('version')}"


def _probes(port: int, host: str | None = None) -> dict[str, Any]:
    def probe(path: str, period: int) -> dict[str, Any]:
        get: dict[str, Any] = {"path": path, "port": port} | ({} if host is None else {"host": host})
        return {"httpGet": get, "initialDelaySeconds": 5, "periodSeconds": period, "failureThreshold": 3}

    return {"livenessProbe": probe("/live", 60), "readinessProbe": probe("/ready", 5)}


def _resources(memory: str) -> dict[str, Any]:
    return {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": memory}}
