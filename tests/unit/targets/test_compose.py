# SPDX-License-Identifier: Apache-2.0
"""docker-compose.yaml by its structure: no container holds more than it needs.  It was not run: there is no daemon here."""

import subprocess
import sys

import pytest
import yaml
from tests.support.golden_proxies import check_golden

from everyhop.policy import parse_policy
from everyhop.targets import compile_policy
from everyhop.targets.compose_probe import probe

POLICY = """
version: 1
trust_domain: shop.example
services:
  web: {}
  orders: {operations: {x: GET /}}
  trap: {canary: true}
allow:
  - {from: web, to: orders, operations: [x]}
targets:
"""


def compiled(settings="  compose: {}\n", policy=POLICY, targets=("envoy", "compose")):
    snapshot = parse_policy({"everyhop.yaml": (policy + settings).encode()})
    found = compile_policy(snapshot, targets)[-1]
    (file,) = found.files
    return yaml.safe_load(file.content), {one.code for one in found.diagnostics if one.is_error}


def services(**kinds):
    return compiled(**kinds)[0]["services"]


def test_without_the_envoys_there_is_nothing_to_run():
    assert compiled(targets=("compose",))[1] == {"compose.envoy"}
    assert compiled()[1] == set()


def test_an_application_elsewhere_is_refused():
    assert compiled("  services: {orders: {host: 'db.example:80'}}\n")[1] == {"compose.host"}
    assert compiled("  services: {orders: {host: '127.0.0.1:80'}}\n")[1] == set()


@pytest.mark.parametrize("name", ["everyhop", "everyhop-svids", "web-app"])
def test_two_containers_of_one_name_are_refused(name):
    assert compiled(policy=POLICY.replace("  orders:", f"  {name}: {{}}\n  orders:"))[1] == {"compose.name"}


def test_no_container_has_a_capability_a_writable_root_or_a_way_to_more():
    for name, one in services().items():
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert one.get("cap_add", []) == (["CHOWN"] if name == "everyhop-prepare" else [])
        assert one["user"] == ("0:0" if name == "everyhop-prepare" else "65532:65532")
        assert "privileged" not in one
        assert "environment" not in one
        assert "ports" not in one


def test_an_application_has_no_network_but_its_sidecar_s():
    found = services()
    assert found["orders-app"]["network_mode"] == "service:orders"
    assert "networks" not in found["orders-app"]
    assert found["orders"]["networks"] == {"mesh": {"aliases": ["orders"]}}
    assert found["orders"]["expose"] == ["15443"]
    assert compiled()[0]["networks"] == {"mesh": {"internal": True}}


def test_everyhop_itself_has_no_network():
    found = services()
    for name in ("everyhop", "everyhop-svids", "everyhop-prepare"):
        assert found[name]["network_mode"] == "none"


def test_a_key_is_mounted_where_its_service_is_and_nowhere_else():
    for name, one in services().items():
        mounted = {volume.partition(":")[0] for volume in one["volumes"] if volume.startswith("svid-")}
        if name in {"everyhop-svids", "everyhop-prepare"}:
            assert mounted == {"svid-orders", "svid-web"}
        else:
            assert mounted == ({f"svid-{name.removesuffix('-app')}"} if name != "everyhop" else set())
        for volume in one["volumes"]:
            if volume.startswith("svid-") and name not in {"everyhop-svids", "everyhop-prepare"}:
                assert volume.endswith(":/etc/everyhop/svid:ro")


def test_the_state_is_everyhop_s_alone():
    holders = {n for n, one in services().items() if any(v.endswith(":/state") for v in one["volumes"])}
    assert holders == {"everyhop", "everyhop-svids", "everyhop-prepare"}


def test_trap_the_agent_answers_nobody_of_another_process_namespace():
    found = services()
    assert found["everyhop-svids"]["pid"] == "service:everyhop"
    assert not [name for name, one in found.items() if "pid" in one and name != "everyhop-svids"]


def test_svids_are_fetched_again_soon_while_the_agent_has_no_policy(tmp_path):
    """The loop as a shell runs it, with commands that stand in: the first fetch fails."""
    (entry, option, program) = services()["everyhop-svids"]["entrypoint"]
    assert (entry, option) == ("sh", "-c")
    log = tmp_path / "log"
    for name, text in {
        "everyhop": f'echo "$1 $2 $3" >> {log}; test "$(grep -c . {log})" -gt 2',
        "sleep": f'echo "sleep $1" >> {log}; test "$1" = 2 || kill $PPID',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["sh", "-c", program.replace("$$", "$")], check=False, env=environment, timeout=60)
    fetched = ["svid fetch orders", "svid fetch web"]
    assert log.read_text().splitlines() == [*fetched, "sleep 2", *fetched, "sleep 300"]


def test_an_image_is_named_or_demanded():
    found = services(settings="  services: {web: {image: 'shop/web:1'}}\n")
    assert found["web-app"]["image"] == "shop/web:1"
    assert found["orders-app"]["image"] == "${ORDERS_IMAGE:?the image of orders}"


def test_a_canary_is_nowhere():
    assert not [name for name in services() if "trap" in name]


HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
SIDECAR = "   0: 00000000:3C53 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532 0 1\n"
LOOPBACK = "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532 0 1\n"
DOCKER_DNS = "   1: 0B00007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532 0 1\n"
OPEN = "   2: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532 0 1\n"
ESTABLISHED = "   3: 0200000A:1F90 0300000A:3C53 01 00000000:00000000 00:00000000 00000000 65532 0 1\n"
OPEN_6 = f"   0: {'0' * 32}:1F90 {'0' * 32}:0000 0A 0:0 0:0 0 0 0 1\n"
LOOPBACK_6 = f"   0: {'0' * 24}01000000:1F90 {'0' * 32}:0000 0A 0:0 0:0 0 0 0 1\n"
MAPPED = f"   0: 0000000000000000FFFF00000100007F:1F90 {'0' * 32}:0000 0A 0:0 0:0 0 0 0 1\n"
MAPPED_OPEN = f"   0: 0000000000000000FFFF00000200000A:1F90 {'0' * 32}:0000 0A 0:0 0:0 0 0 0 1\n"


@pytest.mark.parametrize(
    ("tcp", "tcp6", "is_well"),
    [
        (SIDECAR, "", True),
        (SIDECAR + LOOPBACK + DOCKER_DNS + ESTABLISHED, LOOPBACK_6 + MAPPED, True),
        (LOOPBACK, "", False),
        (SIDECAR + OPEN, "", False),
        (SIDECAR, OPEN_6, False),
        (SIDECAR, MAPPED_OPEN, False),
        ("", "", False),
    ],
    ids=["alone", "loopback", "no-sidecar", "open", "open-6", "open-mapped", "nothing"],
)
def test_the_health_check_sees_an_application_that_can_be_reached_past_its_sidecar(
    tmp_path, tcp, tcp6, is_well
):
    (tmp_path / "tcp").write_text(HEAD + tcp)
    (tmp_path / "tcp6").write_text(HEAD + tcp6)
    program = probe(15443, str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (done.returncode == 0) is is_well, done.stderr


def test_golden():
    check_golden("compose", beside=("envoy",))
