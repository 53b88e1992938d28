# SPDX-License-Identifier: Apache-2.0
"""Verified Access: one endpoint for each service that people reach, with a policy in Cedar.

Verified Access signs everybody in, so a rule that needs no user is narrower here.  Without a statement that permits, a request is
refused.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from everyhop.authz.permissions import Permissions
from everyhop.policy.model import TokenMode, UserMode
from everyhop.targets.aws.cedar import (
    HOST,
    forbid_ambiguous,
    has_form,
    permit,
    roles_condition,
    route_condition,
)
from everyhop.targets.aws.edge import EdgeDoor, head, is_held_elsewhere, refusal
from everyhop.targets.model import Feature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.policy.model import UserIssuer
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

_INSTANCE: Final = "${aws_verifiedaccess_instance.everyhop.id}"


def verified_access_document(
    view: View, doors: Sequence[EdgeDoor], found: list[Diagnostic]
) -> dict[str, Any] | None:
    """Return the document, or None where no service is reached by users; what is refused is added to ``found``."""
    services = {
        one.door.service for one in doors if any(rule.user is not UserMode.NONE for rule in one.rules)
    }
    if not services:
        return None
    issuers = view.intents.snapshot.user_issuers
    domain: str = view.option("application_domain")
    if len(issuers) != 1 or not domain:
        what = "application_domain of targets: aws" if len(issuers) == 1 else "exactly one issuer of users"
        found.append(view.error("verified-access", f"aws: Verified Access needs {what}"))
        return None
    statements: dict[str, list[str]] = defaultdict(list)
    for door in doors:
        if door.door.service in services:
            statements[door.door.service] += _statements(view, issuers[0], door, found)
    return _document(
        view, issuers[0], domain, {name: texts for name, texts in sorted(statements.items()) if texts}
    )


def _statements(view: View, issuer: UserIssuer, door: EdgeDoor, found: list[Diagnostic]) -> list[str]:
    if door.operation.token is not TokenMode.NONE and not is_held_elsewhere(view, Feature.TOKEN):
        why = "Verified Access does not look at access tokens"
        found.append(refusal(view, Feature.TOKEN, door.door, [rule.id for rule in door.rules], why))
        return []
    if not has_form(door.operation.route):
        why = "a parameter before a rest has no form in Cedar"
        found.append(refusal(view, Feature.REST, door.door, [rule.id for rule in door.rules], why))
        return []
    host = f"{door.door.service}.{view.option('application_domain')}"
    conditions = [f"{HOST} == {json.dumps(host)}", route_condition(door.operation.route, door.without)]
    if any(rule.user is UserMode.NONE for rule in door.rules) or not door.needs_user_check:
        return [permit(conditions, door.note)]
    permissions = Permissions(view.intents.snapshot)
    granting = permissions.granting(door.door.service, door.door.name)
    if not granting:
        return []
    conditions.append(roles_condition(view.option("trust_provider"), issuer.roles, granting))
    return [permit(conditions, door.note)]


def _document(
    view: View, issuer: UserIssuer, domain: str, statements: dict[str, list[str]]
) -> dict[str, Any] | None:
    if not statements:
        return None
    provider: str = view.option("trust_provider")
    endpoints = {
        f"e_{name.replace('-', '_')}": {
            "//": f"Service {name}.",
            "verified_access_group_id": "${aws_verifiedaccess_group.everyhop.verifiedaccess_group_id}",
            "attachment_type": "vpc",
            "endpoint_type": "load-balancer",
            "endpoint_domain_prefix": name,
            "application_domain": f"{name}.{domain}",
            "domain_certificate_arn": "${var.verified_access_certificate_arn}",
            "security_group_ids": "${var.verified_access_security_group_ids}",
            "load_balancer_options": {
                "load_balancer_arn": f'${{var.verified_access_load_balancer_arns["{name}"]}}',
                "port": 443,
                "protocol": "https",
                "subnet_ids": "${var.verified_access_subnet_ids}",
            },
            "policy_document": _policy(texts),
        }
        for name, texts in statements.items()
    }
    trust = {
        "policy_reference_name": provider,
        "trust_provider_type": "user",
        "user_trust_provider_type": "oidc",
        "oidc_options": {
            "issuer": issuer.issuer,
            "authorization_endpoint": "${var.oidc_authorization_endpoint}",
            "token_endpoint": "${var.oidc_token_endpoint}",
            "user_info_endpoint": "${var.oidc_user_info_endpoint}",
            "client_id": "${var.oidc_client_id}",
            "client_secret": "${var.oidc_client_secret}",
            "scope": "openid profile",
        },
    }
    attachment = {
        "verifiedaccess_instance_id": _INSTANCE,
        "verifiedaccess_trust_provider_id": "${aws_verifiedaccess_trust_provider.everyhop.id}",
    }
    group = {
        "//": "A request needs a permit of the group and of its endpoint.",
        "verifiedaccess_instance_id": _INSTANCE,
        "policy_document": _policy([text for texts in statements.values() for text in texts]),
        "depends_on": ["aws_verifiedaccess_instance_trust_provider_attachment.everyhop"],
    }
    resources = {
        "aws_verifiedaccess_instance": {"everyhop": {"description": "everyhop"}},
        "aws_verifiedaccess_trust_provider": {"everyhop": trust},
        "aws_verifiedaccess_instance_trust_provider_attachment": {"everyhop": attachment},
        "aws_verifiedaccess_group": {"everyhop": group},
        "aws_verifiedaccess_endpoint": endpoints,
    }
    return {"//": head(view), "variable": _variables(), "resource": resources}


def _variables() -> dict[str, Any]:
    text = {"type": "string"}
    plain = (
        "oidc_authorization_endpoint",
        "oidc_token_endpoint",
        "oidc_user_info_endpoint",
        "oidc_client_id",
    )
    return {
        **dict.fromkeys(plain, text),
        "oidc_client_secret": {"type": "string", "sensitive": True},
        "verified_access_certificate_arn": text,
        "verified_access_load_balancer_arns": {"type": "map(string)", "description": "by service"},
        "verified_access_security_group_ids": {"type": "list(string)"},
        "verified_access_subnet_ids": {"type": "list(string)"},
    }


def _policy(statements: Sequence[str]) -> str:
    """Return a policy as Terraform's JSON has it: ``${`` and ``%{`` would be read as templates."""
    text = "\n".join((forbid_ambiguous(), *statements))
    return text.replace("${", "$${").replace("%{", "%%{")
