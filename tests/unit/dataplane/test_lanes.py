# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from everyhop.dataplane.lanes import (
    Carried,
    Lane,
    carried_by,
    generation_of_svid,
    label,
    lanes_to,
    secrets_of_cluster,
    token_of_secret,
)
from everyhop.dataplane.render import render_sidecar
from everyhop.policy import parse_policy
from everyhop.spiffe.ids import SpiffeId

POLICY = b"""\
version: 1
trust_domain: shop.example
services:
  storefront: {}
  orders:
    operations:
      list: GET /orders
      read: {route: "GET /orders/{id}", token: required}
      write: {route: "PUT /orders/{id}", token: required}
      special: GET /orders/special
      admin: {route: GET /admin, token: operation}
      pay: {route: POST /pay, token: required, once: true}
      hidden: {route: POST /hidden, token: operation}
    probes: [GET /healthz]
  ledger: {tcp: 5432}
allow:
  - {from: storefront, to: orders, operations: [list, read, write, special, admin, pay]}
  - {from: storefront, to: ledger}
"""
X5T = "Abc-_1234567890abcdefghijklmnopqrstuvwxyzABCD"
GENERATION = X5T[:12]
EVERYTHING = Carried(generation=GENERATION, tokens=frozenset({("orders", None), ("orders", "admin")}))


@pytest.fixture(scope="module")
def shop():
    return parse_policy({"policy.yaml": POLICY})


def chosen(shop, carried, names=("list", "read", "write", "special", "admin", "pay")):
    orders = shop.services["orders"]
    operations = [o for o in orders.operations if o.name in names]
    return lanes_to("orders", [*operations, *orders.probes], carried)


def by_name(lanes):
    return {operation.name: lane for operation, lane in lanes.routes}


def test_lanes_of_each_kind(shop):
    found = chosen(shop, EVERYTHING)
    assert found.default == Lane(target="orders")  # as many operations need nothing as need the common token
    named = by_name(found)
    assert named["read"].cluster == named["write"].cluster == f"to-orders@{GENERATION}"
    assert named["admin"].cluster == f"to-orders#admin@{GENERATION}"
    assert named["pay"] == Lane(target="orders", generation=GENERATION, fetched="pay")
    assert named["pay"].cluster == f"to-orders!@{GENERATION}"
    assert named["read"].token == f"token@{GENERATION}/orders"
    assert named["admin"].token == f"token@{GENERATION}/orders#admin"
    assert named["pay"].token is None
    assert named["pay"].svid == named["read"].svid == f"svid@{GENERATION}"
    assert found.default.svid == "svid"
    assert [lane.cluster for lane in found.distinct] == sorted(
        {"to-orders"} | {lane.cluster for lane in named.values()}
    )


def test_a_more_specific_operation_stands_before_the_template_that_it_overlaps(shop):
    order = [operation.name for operation, _ in chosen(shop, EVERYTHING).routes]
    assert order.index("special") < order.index("read")
    assert "list" not in order


def test_the_lane_of_most_operations_is_the_default(shop):
    found = chosen(shop, EVERYTHING, names=("read", "write", "list"))
    # list and the probe need nothing: two and two, and nothing wins
    assert found.default == Lane(target="orders")
    found = chosen(shop, EVERYTHING, names=("read", "write"))
    assert found.default.cluster == f"to-orders@{GENERATION}"
    assert set(by_name(found)) == {"probes[0]"}


def test_without_tokens_there_is_no_lane(shop):
    for carried in (None, Carried(generation=GENERATION, tokens=frozenset())):
        found = chosen(shop, carried)
        named = by_name(found)
        assert found.default == Lane(target="orders")
        assert named["read"] is named["write"] is named["admin"] is None
        assert (named["pay"] is None) == (carried is None)


def test_names_of_secrets_and_clusters_are_read_back():
    for audience in (("orders", None), ("orders", "admin")):
        lane = Lane(target="orders", generation=GENERATION, audience=audience)
        assert token_of_secret(lane.token) == (GENERATION, audience)
        assert generation_of_svid(lane.svid) == GENERATION
        assert secrets_of_cluster(lane.cluster) == (lane.svid, lane.token)
    once = Lane(target="orders", generation=GENERATION, fetched="pay")
    assert secrets_of_cluster(once.cluster) == (once.svid,)
    assert secrets_of_cluster("to-orders") == ()
    assert secrets_of_cluster("app") == ()


@pytest.mark.parametrize(
    "name",
    ["svid", "bundle", "svid@", "svid@short", "svid@Abc-_1234567/x", "token@Abc-_1234567", "token@Abc-_1234567/",
     "token@Abc-_1234567/Orders", "token@Abc-_1234567/orders#", "token@Abc-_1234567/orders# a", "x" * 5000],
)  # fmt: skip
def test_other_names_are_no_tokens(name):
    assert token_of_secret(name) is None
    assert generation_of_svid(name) is None


class Source:
    def __init__(self, identity, held):
        self.identity, self.held = identity, held

    def generation(self, _):
        return self.identity

    def token_for(self, _, target, operation, x5t):
        assert x5t == X5T
        return "t" if (target, operation) in self.held else None


class Identity:
    x5t = X5T


def test_what_can_be_carried_now():
    caller = SpiffeId.parse("spiffe://shop.example/service/storefront")
    wanted = [("orders", None), ("orders", "admin")]
    assert carried_by(Source(None, ()), caller, wanted) is None
    found = carried_by(Source(Identity, {("orders", "admin"), ("other", None)}), caller, wanted)
    assert found == Carried(generation=label(X5T), tokens=frozenset({("orders", "admin")}))


def rendered(shop, make_sidecar, carried):
    files = render_sidecar(shop, make_sidecar("storefront"), {}, carried=carried)
    return {name: json.loads(content) for name, content in files.items()}


def routes_of(files):
    hosts = files["rds/egress.json"]["resources"][0]["virtual_hosts"]
    return next(host for host in hosts if host["name"] == "orders")["routes"]


def test_clusters_that_carry_a_token_pin_certificate_and_token(shop, make_sidecar):
    files = rendered(shop, make_sidecar, EVERYTHING)
    clusters = {c["name"]: c for c in files["xds/cds.json"]["resources"]}
    carrying = clusters[f"to-orders#admin@{GENERATION}"]
    tls = carrying["transport_socket"]["typed_config"]["common_tls_context"]
    assert [s["name"] for s in tls["tls_certificate_sds_secret_configs"]] == [f"svid@{GENERATION}"]
    assert carrying["eds_cluster_config"]["service_name"] == "to-orders"
    (options,) = carrying["typed_extension_protocol_options"].values()
    injector, codec = options["http_filters"]
    assert injector["typed_config"]["overwrite"] is True
    credential = injector["typed_config"]["credential"]["typed_config"]
    assert (credential["credential"]["name"], credential["header"]) == (
        f"token@{GENERATION}/orders#admin",
        "authorization",
    )
    assert codec["name"] == "codec"
    for plain in ("to-orders", "to-ledger", f"to-orders!@{GENERATION}"):
        (options,) = clusters[plain]["typed_extension_protocol_options"].values()
        assert "http_filters" not in options
    assert "to-orders#hidden" not in " ".join(clusters)  # this caller may not call it


def test_routes_name_lanes_and_single_use_fetches_its_token(shop, make_sidecar):
    routes = routes_of(rendered(shop, make_sidecar, EVERYTHING))
    fetching = [route for route in routes if "typed_per_filter_config" in route]
    assert [route["match"]["path"] for route in fetching] == ["/pay"]
    settings = fetching[0]["typed_per_filter_config"]["checks"]["check_settings"]["context_extensions"]
    assert settings == {"target": "orders", "operation": "pay", "generation": GENERATION}
    assert routes[-1]["route"]["cluster"] == "to-orders"
    assert len({route["name"] for route in routes}) == 1


def test_without_a_token_the_call_is_not_sent(shop, make_sidecar):
    routes = routes_of(rendered(shop, make_sidecar, None))
    unserved = [route["match"] for route in routes if route.get("direct_response") == {"status": 503}]
    assert [match.get("path") or match["safe_regex"]["regex"] for match in unserved] == [
        "/admin",
        "/pay",
        "/orders/[^/]+",
        "/orders/[^/]+",
    ]


def test_a_new_generation_changes_clusters_and_routes_and_nothing_else(shop, make_sidecar):
    other = Carried(generation="b" * 12, tokens=EVERYTHING.tokens)
    before, after = (rendered(shop, make_sidecar, carried) for carried in (EVERYTHING, other))
    assert {n for n in after if after[n] != before[n]} == {"xds/cds.json", "rds/egress.json"}
