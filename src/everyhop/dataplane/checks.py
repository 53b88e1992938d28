# SPDX-License-Identifier: Apache-2.0
"""Credentials besides the certificate: which calls need them, and the filters that have them checked.

The agent checks (Envoy's external authorization), so the verdict on a token is the one of
:mod:`everyhop.tokens` wherever it is asked.  What passes between Envoy and the agent:

- The call's metadata: ``x-everyhop-instance`` and ``x-everyhop-point`` (``ingress``, ``egress`` or ``edge``).
- The request: ``header_map`` with the fields of :data:`SHOWN_HEADERS`, each field line by itself; ``source.principal``
  and ``source.certificate`` of the caller; ``metadata_context`` with Envoy's RBAC metadata, that is, the
  verdict (``enforced_effective_policy_id``) and the operation (``shadow_effective_policy_id``); at an egress the
  ``context_extensions`` ``target``, ``operation`` and ``generation``, the start of the thumbprint of the certificate that
  the call will be made under (it may be one that has just been replaced).
- Headers in an answer have a ``value``; Envoy reads no ``raw_value`` there.
- An answer that lets a call pass has the headers to set (``x-everyhop-*``, at the edge ``txn-token``, at an egress
  ``authorization``) and to remove, and as dynamic metadata ``until`` (seconds since 1970 as a number; without it
  the next call asks again) and ``headers`` (an object: those of the headers that later calls get while it is
  remembered; ``x-everyhop-*`` only).  The record takes the user from the header ``x-everyhop-user``.
- Where facts of the call decided, either answer has as dynamic metadata ``why`` (:func:`everyhop.dataplane._names.why`).
- An answer that refuses has status, headers (``www-authenticate``), and as dynamic metadata ``code`` and ``title``;
  the body is made here, so it is like every other refusal's.

A new snapshot or epoch must be in force at the agent before it is rendered: whoever asks after the memory is
emptied must not get an answer of before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import Json, duration, extension, from_agent, type_url, typed
from everyhop.dataplane.token_memory import LUA, no_memory
from everyhop.policy.model import TokenMode, UserMode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from everyhop.authz.table import ServiceTable
    from everyhop.dataplane.model import Sidecar
    from everyhop.policy.model import Operation

SHOWN_HEADERS: Final = ("authorization", "txn-token", "dpop")
"""Besides these, and those that the policy chooses for its conditions, the agent is told ``x-everyhop-decision`` and Envoy's own."""

ENABLED: Final[Json] = typed("envoy.config.route.v3.FilterConfig", config={})
_TIMEOUT: Final = 2.0
_EXT_AUTHZ: Final = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
_PER_ROUTE: Final = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
_LETTERS: Final = {TokenMode.SERVICE: "s", TokenMode.OPERATION: "o"}
_USER_LETTERS: Final = {UserMode.OPTIONAL: "u", UserMode.REQUIRED: "U"}


def needs_of(operation: Operation, user: UserMode, *, asks: bool = False) -> str:
    """Return the letters of what a permitted call of an operation needs besides a certificate.

    ``asks`` tells that facts of the call have the last word, which only the agent knows.
    """
    token = _LETTERS.get(operation.token, "")
    once = "x" if token and operation.once else ""
    return token + once + _USER_LETTERS.get(user, "") + (names.FACTS if asks else "")


def takes_users(table: ServiceTable) -> bool:
    """Tell whether any caller may call any operation of a service for a user."""
    return any(v.user is not UserMode.NONE for entry in table.entries for v in entry.verdicts.values())


def shown_headers(chosen: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the fields that the agent is shown; ``chosen`` are those that conditions read."""
    return (*SHOWN_HEADERS, *chosen, names.DECISION_HEADER)


def ingress_checks(sidecar: Sidecar, chosen: Sequence[str]) -> list[Json]:
    """Return the filters of an ingress behind the policy's; they rest until the route table enables them.

    ``chosen`` are the headers that conditions read.
    """
    return [_memory(), _asking(sidecar, names.INGRESS, disabled=True, chosen=chosen)]


def enabled_checks() -> Json:
    """Return what enables the checks of an ingress, for ``typed_per_filter_config``."""
    return {names.MEMORY: ENABLED, names.CHECKS: ENABLED}


def egress_check(sidecar: Sidecar) -> Json:
    """Return the filter of an egress that fetches a token for a single call; routes enable it."""
    return _asking(sidecar, names.EGRESS, disabled=True)


def fetched_token(target: str, operation: str, generation: str) -> Json:
    """Return what makes a route of an egress fetch a token for each call, for ``typed_per_filter_config``."""
    extensions = {"target": target, "operation": operation, "generation": generation}
    return {names.CHECKS: typed(_PER_ROUTE, check_settings={"context_extensions": extensions})}


def edge_check(sidecar: Sidecar, chosen: Sequence[str]) -> Json:
    """Return the filter of an edge, where every call shows a credential."""
    return _asking(sidecar, names.EDGE, disabled=False, chosen=chosen)


def _memory() -> Json:
    return {
        "name": names.MEMORY,
        "disabled": True,
        "config_discovery": {
            "config_source": from_agent(),
            "type_urls": [type_url(LUA)],
            "default_config": no_memory(),
        },
    }


def _asking(sidecar: Sidecar, point: str, *, disabled: bool, chosen: Sequence[str] = ()) -> Json:
    remembered: Mapping[str, Any] = {}
    if point == names.INGRESS:
        matcher = {
            "filter": names.OURS,
            "path": [{"key": "ok"}],
            "value": {"bool_match": True},
            "invert": True,
        }
        remembered = {"filter_enabled_metadata": matcher}
    shown = [{"exact": name} for name in shown_headers(chosen)]
    metadata = [("x-everyhop-instance", sidecar.instance), ("x-everyhop-point", point)]
    asking = extension(
        names.CHECKS,
        _EXT_AUTHZ,
        transport_api_version="V3",
        grpc_service={
            "envoy_grpc": {"cluster_name": names.CHECKS_CLUSTER},
            "timeout": duration(_TIMEOUT),
            "initial_metadata": [{"key": key, "value": value} for key, value in metadata],
        },
        failure_mode_allow=False,
        status_on_error={"code": "ServiceUnavailable"},
        include_peer_certificate=point == names.INGRESS,
        encode_raw_headers=True,
        allowed_headers={"patterns": shown},
        metadata_context_namespaces=[names.HTTP_RBAC],
        validate_mutations=True,
        **remembered,
    )
    return {**asking, "disabled": True} if disabled else asking
