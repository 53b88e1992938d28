# SPDX-License-Identifier: Apache-2.0
"""A sidecar whose service the policy no longer declares: everything is refused, then nothing listens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import discovery_response, encode
from everyhop.dataplane.enforcement import filter_file, undeclared_service
from everyhop.dataplane.render import LISTENERS
from everyhop.dataplane.routes import egress_routes

if TYPE_CHECKING:
    from everyhop.dataplane.model import Sidecar
    from everyhop.policy.model import Snapshot


def closing_files(snapshot: Snapshot, sidecar: Sidecar) -> dict[str, bytes]:
    """Return the files that shut a sidecar, in the order in which they must be written.

    Filter and routes refuse new requests on open connections at once; without listeners, what is open ends
    within the drain time.  A later :func:`~everyhop.dataplane.render.render_sidecar` opens it again.
    """
    refusing = [names.AUTHZ] if sidecar.edge is None else [names.AUTHZ, names.EDGE_AUTHZ]
    return {
        **{
            f"ecds/{name}.json": encode(filter_file(name, undeclared_service(snapshot), snapshot.hash))
            for name in refusing
        },
        "rds/egress.json": encode(egress_routes(snapshot, sidecar, [], {})),
        LISTENERS: encode(discovery_response("", [])),
    }
