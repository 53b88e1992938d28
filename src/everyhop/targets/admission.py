# SPDX-License-Identifier: Apache-2.0
"""Guard rails: ValidatingAdmissionPolicies (Kubernetes 1.30, CEL), and the configuration of our webhook.

``admissionregistration.k8s.io/v1``.  The policies hold without anything of ours running; the webhook says the same in words and,
with the audit log, who tried.  Both fail closed, and neither looks at namespaces other than those named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.admission.default_deny import DENY_KINDS
from everyhop.admission.judging import RULES
from everyhop.admission.model import Code, Kinds
from everyhop.admission.webhook import PATH
from everyhop.targets._guard_expressions import expressions
from everyhop.targets.objects import obj, object_name, yaml_file
from everyhop.targets.yaml import Document

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from everyhop.targets.model import Diagnostic, File
    from everyhop.targets.view import View

API: Final = "admissionregistration.k8s.io/v1"
NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
_WEBHOOK_NOTES: Final = (
    "The webhook of `everyhop up` with the setting admission = true. The cluster's API server has to trust the certificate:",
    "put the output of `everyhop bundle show --format pem`, in base64, into clientConfig.caBundle, again after each rotation.",
)
_REMOVAL: Final = "no policy that refuses by default goes or opens"


class AdmissionTarget:
    """ValidatingAdmissionPolicies with their bindings, and the webhook's configuration."""

    name = "admission"
    summary = "guard rails: ValidatingAdmissionPolicy, and everyhop's webhook"

    def compile(self, view: View) -> tuple[Sequence[File], Sequence[Diagnostic]]:
        """Return one file of policies and one of the webhook."""
        policies = yaml_file(
            view, "admission/guard-rails.yaml", _policies(view), "Needs Kubernetes 1.30 or newer."
        )
        if not view.option("url"):
            return (policies,), ()
        if not view.option("url").startswith("https://"):
            return (policies,), (view.error("url", "targets: admission: url is no https URL"),)
        webhook = yaml_file(view, "admission/webhook.yaml", [Document(_webhook(view))], *_WEBHOOK_NOTES)
        return (policies, webhook), ()


def guarded_namespaces(view: View) -> tuple[str, ...]:
    """Return the namespaces in which the guard rails hold."""
    return tuple(view.option("namespaces")) or view.intents.namespaces


def _policies(view: View) -> Iterator[Document]:
    for rule in RULES:
        yield from _rule(view, rule.code, rule.summary, rule.kinds, ("CREATE", "UPDATE"))
    yield from _rule(view, Code.DEFAULT_DENY_REMOVED, _REMOVAL, DENY_KINDS, ("UPDATE", "DELETE"))


def _rule(
    view: View, code: Code, summary: str, kinds: Sequence[Kinds], operations: Sequence[str]
) -> Iterator[Document]:
    for one in kinds:
        for kind, resource in one.resources.items():
            name = object_name("everyhop", code.value, one.group or "core", resource)
            spec = {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [_resources(one.group, [resource], operations)]},
                "validations": [
                    {"expression": expression, "message": f"{code.value}: {summary}", "reason": "Forbidden"}
                    for expression in expressions(code, one.group, kind)
                ],
            }
            binding = {
                "policyName": name,
                "validationActions": ["Deny", "Audit"],
                "matchResources": {"namespaceSelector": _selector(view)},
            }
            yield Document(obj(view, API, "ValidatingAdmissionPolicy", name, None, spec), (summary,))
            yield Document(obj(view, API, "ValidatingAdmissionPolicyBinding", name, None, binding))


def _selector(view: View) -> dict[str, Any]:
    names = list(guarded_namespaces(view))
    return {"matchExpressions": [{"key": NAMESPACE_NAME, "operator": "In", "values": names}]}


def _resources(group: str, resources: Sequence[str], operations: Sequence[str]) -> dict[str, Any]:
    return {
        "apiGroups": [group],
        "apiVersions": ["*"],
        "operations": list(operations),
        "resources": list(resources),
        "scope": "Namespaced",
    }


def _webhook(view: View) -> dict[str, Any]:
    by_group: dict[str, dict[str, None]] = {}
    for one in (kinds for rule in RULES for kinds in rule.kinds):
        by_group.setdefault(one.group, {}).update(dict.fromkeys(one.resources.values()))
    removals = [_resources(one.group, list(one.resources.values()), ["DELETE"]) for one in DENY_KINDS]
    rules = [_resources(group, list(found), ["CREATE", "UPDATE"]) for group, found in by_group.items()]
    webhook = {
        "name": "admission.everyhop.dev",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": view.option("url").rstrip("/") + PATH},
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "namespaceSelector": _selector(view),
        "rules": [*rules, *removals],
        "sideEffects": "None",
        "timeoutSeconds": 5,
    }
    return obj(view, API, "ValidatingWebhookConfiguration", "everyhop", None, None, webhooks=[webhook])


TARGET: Final = AdmissionTarget()
