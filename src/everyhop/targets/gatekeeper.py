# SPDX-License-Identifier: Apache-2.0
"""The rules of :mod:`everyhop.admission` for Gatekeeper: a ConstraintTemplate and a Constraint each (Rego version 1).

``templates.gatekeeper.sh/v1``, ``constraints.gatekeeper.sh/v1beta1``; Gatekeeper 3.19 or newer for ``version: v1``.  What Gatekeeper adds is its
audit of objects that are there already.  That a default deny is not removed is left to the webhook and the guard rails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.admission.judging import RULES
from everyhop.admission.meshes import EVERYWHERE, FROM_OF_CILIUM, POSITIVE
from everyhop.admission.model import Code, Rule
from everyhop.admission.workloads import CONTAINERS, SENSITIVE_NAME
from everyhop.targets.admission import guarded_namespaces
from everyhop.targets.objects import obj, yaml_file
from everyhop.targets.yaml import Document

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from everyhop.targets.model import Diagnostic, File
    from everyhop.targets.view import View

ENGINE: Final = "Rego"
TARGET_NAME: Final = "admission.k8s.gatekeeper.sh"

_HEAD: Final = """\
import rego.v1

group := split(object.get(input.review.object, "apiVersion", ""), "/")[0] if contains(object.get(input.review.object, "apiVersion", ""), "/")

group := "" if not contains(object.get(input.review.object, "apiVersion", ""), "/")

kind := object.get(input.review.object, "kind", "")

spec := object.get(input.review.object, "spec", {})
"""


def _set(names: Iterable[str]) -> str:
    return "{" + ", ".join(f'"{name}"' for name in names) + "}"


_POD: Final = f"""
pod := object.get(spec, [], {{}}) if kind == "Pod"

pod := object.get(spec, ["jobTemplate", "spec", "template", "spec"], {{}}) if kind == "CronJob"

pod := object.get(spec, ["template", "spec"], {{}}) if not kind in {{"Pod", "CronJob"}}

variables contains variable if {{
	some list in {_set(CONTAINERS)}
	some container in object.get(pod, list, [])
	some variable in object.get(container, "env", [])
}}

sources contains source if {{
	some list in {_set(CONTAINERS)}
	some container in object.get(pod, list, [])
	some source in object.get(container, "envFrom", [])
}}
"""

_ISTIO: Final = f"""
allows if {{
	group == "security.istio.io"
	kind == "AuthorizationPolicy"
	object.get(spec, "action", "ALLOW") == "ALLOW"
}}

bound if count(object.get(spec, ["selector", "matchLabels"], {{}})) > 0

bound if count(object.get(spec, "targetRef", {{}})) > 0

bound if count(object.get(spec, "targetRefs", [])) > 0

named(source) if {{
	some field in {_set(POSITIVE)}
	count(object.get(source, field, [])) > 0
}}
"""

_BODIES: Final = {
    Code.PERMISSIVE_MTLS: """
violation contains {"msg": msg} if {
	mode := object.get(spec, ["mtls", "mode"], "STRICT")
	mode != "STRICT"
	msg := sprintf("%s lets plaintext in; write STRICT", [mode])
}

violation contains {"msg": msg} if {
	some port, one in object.get(spec, "portLevelMtls", {})
	mode := object.get(one, "mode", "STRICT")
	mode != "STRICT"
	msg := sprintf("%s of port %s lets plaintext in; write STRICT", [mode, port])
}
""",
    Code.OPEN_ALLOW: f"""{_ISTIO}
violation contains {{"msg": "an ALLOW without selector or targetRefs opens every workload of the namespace"}} if {{
	allows
	count(object.get(spec, "rules", [])) > 0
	not bound
}}

violation contains {{"msg": "whoever comes is allowed: name the callers"}} if {{
	allows
	some rule in object.get(spec, "rules", [])
	count(object.get(rule, "from", [])) == 0
}}

violation contains {{"msg": "a source names nobody, or only who it is not"}} if {{
	allows
	some rule in object.get(spec, "rules", [])
	some from in object.get(rule, "from", [])
	not named(object.get(from, "source", {{}}))
}}

violation contains {{"msg": "a policy on a namespace widens every route in it"}} if {{
	group == "policy.linkerd.io"
	kind == "AuthorizationPolicy"
	object.get(spec, ["targetRef", "kind"], "") == "Namespace"
}}

violation contains {{"msg": "without a reference everybody may call, unauthenticated"}} if {{
	group == "policy.linkerd.io"
	kind == "AuthorizationPolicy"
	count(object.get(spec, "requiredAuthenticationRefs", [])) == 0
}}

violation contains {{"msg": "a server's default opens it to more than its policies name"}} if {{
	kind == "Server"
	object.get(spec, "accessPolicy", "deny") != "deny"
}}

violation contains {{"msg": "everybody may call"}} if {{
	kind == "ServerAuthorization"
	object.get(spec, ["client", "unauthenticated"], false) == true
}}

violation contains {{"msg": "every pod and every address may connect: name the peers"}} if {{
	kind == "NetworkPolicy"
	some rule in object.get(spec, "ingress", [])
	count(object.get(rule, "from", [])) == 0
}}

violation contains {{"msg": "every address may connect"}} if {{
	kind == "NetworkPolicy"
	some rule in object.get(spec, "ingress", [])
	some peer in object.get(rule, "from", [])
	object.get(peer, ["ipBlock", "cidr"], "") in {_set(EVERYWHERE)}
}}

violation contains {{"msg": "all means everybody, the world too"}} if {{
	kind == "CiliumNetworkPolicy"
	some rule in object.get(spec, "ingress", [])
	"all" in object.get(rule, "fromEntities", [])
}}

violation contains {{"msg": "a rule with ports and without peers opens them to everybody"}} if {{
	kind == "CiliumNetworkPolicy"
	some rule in object.get(spec, "ingress", [])
	count(object.get(rule, "toPorts", [])) > 0
	not has_peers(rule)
}}

has_peers(rule) if {{
	some field in {_set(FROM_OF_CILIUM)}
	count(object.get(rule, field, [])) > 0
}}
""",
    Code.WILDCARD_PRINCIPAL: f"""{_ISTIO}
violation contains {{"msg": msg}} if {{
	allows
	some rule in object.get(spec, "rules", [])
	some from in object.get(rule, "from", [])
	some field in {{"principals", "requestPrincipals", "namespaces", "serviceAccounts"}}
	some name in object.get(from, ["source", field], [])
	contains(name, "*")
	msg := sprintf("%s names more than one identity", [name])
}}

violation contains {{"msg": msg}} if {{
	kind == "MeshTLSAuthentication"
	some name in object.get(spec, "identities", [])
	contains(name, "*")
	msg := sprintf("%s names more than one identity", [name])
}}
""",
    Code.AUTOMOUNTED_TOKEN: f"""{_POD}
violation contains {{"msg": "every pod gets a token for the cluster's API; write false"}} if {{
	kind == "ServiceAccount"
	object.get(input.review.object, "automountServiceAccountToken", true) != false
}}

violation contains {{"msg": "the pod gets a token for the cluster's API; write false"}} if {{
	kind != "ServiceAccount"
	object.get(pod, "automountServiceAccountToken", false) == true
}}
""",
    Code.SECRET_IN_ENV: f"""{_POD}
violation contains {{"msg": "a secret as environment; mount it, or fetch it when needed"}} if {{
	some variable in variables
	object.get(variable, ["valueFrom", "secretKeyRef"], null) != null
}}

violation contains {{"msg": "a secret as environment; mount it, or fetch it when needed"}} if {{
	some source in sources
	object.get(source, "secretRef", null) != null
}}

violation contains {{"msg": msg}} if {{
	some variable in variables
	object.get(variable, "value", "") != ""
	regex.match(`{SENSITIVE_NAME.removeprefix("(?i)")}`, upper(object.get(variable, "name", "")))
	msg := sprintf("a secret written into the manifest: %s", [variable.name])
}}
""",
}


class GatekeeperTarget:
    """ConstraintTemplates and Constraints."""

    name = "gatekeeper"
    summary = "the guard rails as Gatekeeper's ConstraintTemplates and Constraints"

    def compile(self, view: View) -> tuple[Sequence[File], Sequence[Diagnostic]]:
        """Return one file; the constraints need the templates to be served, so apply it twice or in two steps."""
        notes = ("Apply it twice: a constraint's kind exists a moment after its template.",)
        return (yaml_file(view, "gatekeeper/constraints.yaml", _documents(view), *notes),), ()


def rego_of(code: Code) -> str:
    """Return the module of a rule."""
    return f"package everyhop.{code.value.replace('-', '_')}\n\n{_HEAD}{_BODIES[code]}"


def kind_of(code: Code) -> str:
    """Return the kind of a rule's constraints."""
    return "Everyhop" + "".join(word.capitalize() for word in code.value.split("-"))


def _documents(view: View) -> Iterator[Document]:
    for rule in RULES:
        yield Document(_template(view, rule), (rule.summary,))
    for rule in RULES:
        yield Document(_constraint(view, rule))


def _template(view: View, rule: Rule) -> dict[str, Any]:
    code = [{"engine": ENGINE, "source": {"version": "v1", "rego": rego_of(rule.code)}}]
    spec = {
        "crd": {"spec": {"names": {"kind": kind_of(rule.code)}}},
        "targets": [{"target": TARGET_NAME, "code": code}],
    }
    name = kind_of(rule.code).lower()
    return obj(view, "templates.gatekeeper.sh/v1", "ConstraintTemplate", name, None, spec)


def _constraint(view: View, rule: Rule) -> dict[str, Any]:
    kinds = [{"apiGroups": [one.group], "kinds": list(one.resources)} for one in rule.kinds]
    spec = {
        "enforcementAction": "deny",
        "match": {"kinds": kinds, "namespaces": list(guarded_namespaces(view))},
    }
    return obj(
        view,
        "constraints.gatekeeper.sh/v1beta1",
        kind_of(rule.code),
        f"everyhop-{rule.code.value}",
        None,
        spec,
    )


TARGET: Final = GatekeeperTarget()
