# SPDX-License-Identifier: Apache-2.0
"""The configuration of server and agents, in HCL.

Every value comes from an option or a name whose characters HCL takes as they are, and is quoted nonetheless.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from everyhop.targets.view import View

SERVER: Final = "spire-server"
AGENT: Final = "spire-agent"
BUNDLE: Final = "spire-bundle"
PORT: Final = 8081
HEALTH: Final = 8080
AGENT_HEALTH: Final = 9982  # the agent is on the node's own network, where 8080 is often taken
SOCKETS: Final = "/run/spire/agent-sockets"
DATA: Final = "/run/spire/data"
BUNDLE_PLACE: Final = "/run/spire/bundle"
_DAY: Final = 86400
_SHORTER: Final = 6  # SPIRE wants the authority to outlive what it signs six times


def server_conf(view: View) -> str:
    """Return ``server.conf``: node attestation by projected tokens of the agents' service account, SQLite on its volume."""
    ttl, jwt_ttl = view.option("ttl"), view.option("jwt_ttl")
    account = f"{view.option('namespace')}:{AGENT}"
    return f"""server {{
  bind_address = "0.0.0.0"
  bind_port = "{PORT}"
  socket_path = "/run/spire/server/private/api.sock"
  trust_domain = {_quoted(view.intents.snapshot.trust_domain.name)}
  data_dir = "{DATA}"
  log_level = "INFO"
  ca_key_type = "ec-p256"
  ca_ttl = "{max(_DAY, _SHORTER * ttl)}s"
  default_x509_svid_ttl = "{ttl}s"
  default_jwt_svid_ttl = "{jwt_ttl}s"
}}

plugins {{
  DataStore "sql" {{
    plugin_data {{
      database_type = "sqlite3"
      connection_string = "{DATA}/datastore.sqlite3"
    }}
  }}

  NodeAttestor "k8s_psat" {{
    plugin_data {{
      clusters = {{
        {_quoted(view.option("cluster"))} = {{
          service_account_allow_list = [{_quoted(account)}]
        }}
      }}
    }}
  }}

  KeyManager "disk" {{
    plugin_data {{
      keys_path = "{DATA}/keys.json"
    }}
  }}

  Notifier "k8sbundle" {{
    plugin_data {{
      namespace = {_quoted(view.option("namespace"))}
      config_map = "{BUNDLE}"
    }}
  }}
}}

{_health(HEALTH, "0.0.0.0")}"""  # noqa: S104  # the kubelet asks at the pod's address


def agent_conf(view: View) -> str:
    """Return ``agent.conf``: workloads are attested by the kubelet, whose certificate is verified."""
    return f"""agent {{
  data_dir = "{DATA}"
  log_level = "INFO"
  server_address = "{SERVER}.{view.option("namespace")}.svc"
  server_port = "{PORT}"
  socket_path = "{SOCKETS}/spire-agent.sock"
  trust_bundle_path = "{BUNDLE_PLACE}/bundle.crt"
  trust_domain = {_quoted(view.intents.snapshot.trust_domain.name)}
}}

plugins {{
  NodeAttestor "k8s_psat" {{
    plugin_data {{
      cluster = {_quoted(view.option("cluster"))}
    }}
  }}

  KeyManager "memory" {{
    plugin_data {{}}
  }}

  WorkloadAttestor "k8s" {{
    plugin_data {{
      node_name_env = "MY_NODE_NAME"
    }}
  }}
}}

{_health(AGENT_HEALTH, "127.0.0.1")}"""


def _health(port: int, address: str) -> str:
    return f"""health_checks {{
  listener_enabled = true
  bind_address = "{address}"
  bind_port = "{port}"
  live_path = "/live"
  ready_path = "/ready"
}}
"""


def _quoted(text: str) -> str:
    return json.dumps(text)
