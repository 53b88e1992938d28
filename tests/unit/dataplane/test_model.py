# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from everyhop.core.errors import InputError
from everyhop.dataplane.model import AppPort, AppSocket


@pytest.mark.parametrize(
    "changed",
    [
        {"directory": Path("envoy")},
        {"access_log": Path("access.log")},
        {"egress_socket": Path("egress.sock")},
        {"sds_socket": Path("/" + "x" * 107)},
        {"admin_socket": Path("/" + "é" * 60)},
        {"app": AppSocket(Path("app.sock"))},
        {"app": AppSocket(Path("/" + "x" * 200))},
        {"egress_port": 21001},
        {"egress_port": 0},
        {"ingress": ("127.0.0.1", 65536)},
        {"app": AppPort(21002)},
        {"app": AppPort(-1)},
        {"access_log": Path("/state/envoy/0123456789/xds/access.log")},
    ],
)
def test_a_sidecar_that_cannot_work_is_refused(make_sidecar, changed):
    with pytest.raises(InputError):
        make_sidecar(**changed)


def test_the_secret_does_not_show(make_sidecar):
    assert "the secret" not in repr(make_sidecar())


def test_tcp_sockets_are_named_after_their_target_while_that_fits(make_sidecar):
    sidecar = make_sidecar()
    assert sidecar.tcp_socket("ledger") == Path("/state/run/tcp-ledger.sock")
    deep = make_sidecar(egress_socket=Path("/" + "d" * 70) / "egress.sock")
    long = deep.tcp_socket("l" * 63)
    assert len(str(long)) <= 107
    assert long != deep.tcp_socket("l" * 62)
    assert long.parent == deep.egress_socket.parent
