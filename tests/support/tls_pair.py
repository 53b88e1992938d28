# SPDX-License-Identifier: Apache-2.0
"""Two ends of a TLS connection in memory."""

from __future__ import annotations

import ssl


class Pair:
    """Two ends of one connection, pumped until both are done or one refuses."""

    def __init__(self, server, client):
        self.wires = [ssl.MemoryBIO() for _ in range(4)]
        a, b, c, d = self.wires
        self.server = server.wrap_bio(a, b, server_side=True)
        self.client = client.wrap_bio(c, d, server_hostname="whatever.example")

    def pump(self):
        a, b, c, d = self.wires
        a.write(d.read())
        c.write(b.read())

    def handshake(self):
        waiting = [self.client, self.server]
        for _ in range(10):
            for end in tuple(waiting):
                try:
                    end.do_handshake()
                    waiting.remove(end)
                except ssl.SSLWantReadError:
                    pass
                self.pump()
            if not waiting:
                return self
        raise AssertionError("the handshake does not end")

    def say(self, data):
        self.client.write(data)
        self.pump()
        return self.server.read(100)
