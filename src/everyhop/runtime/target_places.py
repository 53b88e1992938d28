# SPDX-License-Identifier: Apache-2.0
"""A compiled Envoy bootstrap, moved to places of a proof: nothing of what it decides is touched.

The listener goes to a free port of loopback, its secrets, the application and the authorizer to sockets in a directory of the
proof.  The application becomes a listener of the same Envoy that answers with a mark, so what has the mark got through.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from everyhop.core.errors import InputError
from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import (
    OWNER_ONLY,
    Json,
    encode,
    extension,
    pipe,
    set_header,
    socket_address,
)
from everyhop.dataplane.model import LOOPBACK
from everyhop.targets.envoy.bootstrap import AUTHORIZER
from everyhop.targets.envoy.transport import bundle_secret, svid_secret

REACHED: Final = "x-everyhop-reached"
ASKED: Final = "x-everyhop-asked"
_ASK_TIMEOUT: Final = "30s"
_MANAGER: Final = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_APPS: Final = (names.APP, names.APP_H2)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the parts of a proof are, below one directory (short: sockets have at most 107 bytes)."""

    root: Path

    @property
    def bootstrap(self) -> Path:
        """Return the moved bootstrap."""
        return self.root / "bootstrap.json"

    @property
    def secrets(self) -> Path:
        """Return the directory of the secrets' files, which Envoy watches."""
        return self.root / "secrets"

    @property
    def certificates(self) -> Path:
        """Return the directory of certificate, key and bundle, which Envoy watches too."""
        return self.root / "svid"

    @property
    def admin(self) -> Path:
        """Return Envoy's admin socket."""
        return self.root / "admin.sock"

    @property
    def app(self) -> Path:
        """Return the socket of the application's stand-in."""
        return self.root / "app.sock"

    @property
    def authorizer(self) -> Path:
        """Return the socket of whom Envoy asks."""
        return self.root / "asked.sock"

    @property
    def log(self) -> Path:
        """Return what Envoy writes."""
        return self.root / "envoy.log"


def secret_files(places: Places) -> dict[str, bytes]:
    """Return the files of the two secrets, by name."""
    directory = str(places.certificates)
    return {
        f"{names.SDS_SVID}.json": encode(svid_secret(directory)),
        f"{names.SDS_BUNDLE}.json": encode(bundle_secret(directory)),
    }


def is_tcp(bootstrap: bytes) -> bool:
    """Tell whether the bootstrap is of a tcp service; raises InputError for what is no bootstrap of ours."""
    return _manager(_listener(_document(bootstrap))) is None


def service_of(bootstrap: bytes) -> str:
    """Return the name of the service that a bootstrap is for; raises InputError."""
    try:
        return str(_document(bootstrap)["node"]["cluster"])
    except (KeyError, TypeError) as error:
        raise InputError("the bootstrap names no service (node.cluster)") from error


def moved(bootstrap: bytes, places: Places, mark: str) -> bytes:
    """Return the bootstrap at its places of a proof; raises InputError for what is no bootstrap of ours."""
    document = _document(bootstrap)
    listener = _listener(document)
    listener["address"] = socket_address(LOOPBACK, 0)
    manager = _manager(listener)
    _move_secrets(document, places)
    for cluster in document["static_resources"]["clusters"]:
        _move_cluster(cluster, places)
    for asking in (manager or {}).get("http_filters", ()):
        if asking["name"] == names.CHECKS:
            # A busy machine must not make a refusal of an answer that comes late.
            asking["typed_config"]["grpc_service"]["timeout"] = _ASK_TIMEOUT
    document["static_resources"]["listeners"].append(_application(places, mark, is_tcp=manager is None))
    document["admin"] = {"address": pipe(places.admin, mode=OWNER_ONLY)}
    return encode(document)


def _document(bootstrap: bytes) -> Json:
    try:
        document = msgspec.json.decode(bootstrap)
    except msgspec.DecodeError as error:
        raise InputError(f"the bootstrap is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise InputError("the bootstrap is no JSON object")
    return document


def _listener(document: Json) -> Json:
    try:
        (listener,) = document["static_resources"]["listeners"]
        (chain,) = listener["filter_chains"]
        found: Json = listener
        if not chain["filters"]:
            raise InputError("the bootstrap's listener has no filter")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("the bootstrap has not exactly one listener with one filter chain") from error
    return found


def _manager(listener: Json) -> Json | None:
    config: Json = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return config if config["@type"].endswith(_MANAGER) else None


def _move_secrets(node: Any, places: Places) -> None:
    """Move every source of secrets in files."""
    if isinstance(node, dict):
        source = node.get("path_config_source")
        if isinstance(source, dict):
            source["path"] = str(places.secrets / Path(source["path"]).name)
            source["watched_directory"] = {"path": str(places.secrets)}
        for value in node.values():
            _move_secrets(value, places)
    elif isinstance(node, list):
        for value in node:
            _move_secrets(value, places)


def _move_cluster(cluster: Json, places: Places) -> None:
    if cluster["name"] in _APPS:
        where = places.app
    elif cluster["name"] == AUTHORIZER:
        where = places.authorizer
        cluster.pop("transport_socket", None)
    else:
        raise InputError(f"the bootstrap has a cluster {cluster['name']!r}, which is not of ours")
    cluster["type"] = "STATIC"
    for endpoints in cluster["load_assignment"]["endpoints"]:
        for one in endpoints["lb_endpoints"]:
            one["endpoint"]["address"] = pipe(where)


def _application(places: Places, mark: str, *, is_tcp: bool) -> Json:
    """Return a listener that answers everything with the mark, and says whether the authorizer was asked on the way."""
    if is_tcp:
        answering = extension(
            "answering",
            "envoy.extensions.filters.network.direct_response.v3.Config",
            response={"inline_string": mark},
        )
    else:
        host = {
            "name": "app",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
            "response_headers_to_add": [set_header(REACHED, mark), set_header(ASKED, f"%REQ({ASKED})%")],
        }
        answering = extension(
            "answering",
            _MANAGER,
            stat_prefix="app",
            codec_type="AUTO",
            route_config={"name": "app", "virtual_hosts": [host]},
            upgrade_configs=[{"upgrade_type": "websocket"}],
            http2_protocol_options={"allow_connect": True},
            http_filters=[extension("router", "envoy.extensions.filters.http.router.v3.Router")],
        )
    return {
        "name": "app",
        "address": pipe(places.app, mode=OWNER_ONLY),
        "filter_chains": [{"filters": [answering]}],
    }
