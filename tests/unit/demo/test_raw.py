# SPDX-License-Identifier: Apache-2.0
"""The attackers' HTTP client: exact bytes out, and a plain account of what came back."""

import socket
import ssl

import pytest

from everyhop.demo.raw import Reply, describe_error, parse_reply, read_reply, request


def test_a_request_goes_out_exactly_as_given():
    data = request("get", b"//a\\%00", host="h", headers=[("X_a", "\xff")], body=b"xy")
    assert data == b"get //a\\%00 HTTP/1.1\r\nhost: h\r\nX_a: \xff\r\ncontent-length: 2\r\n\r\nxy"


@pytest.mark.parametrize(
    ("data", "status", "body", "rest"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabcd", 200, b"ab", b"cd"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nx", 200, b"ab", b"x"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", 204, b"", b""),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\nframes", 101, b"", b"frames"),
    ],
)
def test_answers_are_cut_out_of_the_stream(data, status, body, rest):
    reply = parse_reply(data, head=False, ended=False)
    assert reply is not None
    assert (reply.status, reply.body, reply.rest) == (status, body, rest)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\na",
    ],
)
def test_an_incomplete_answer_is_waited_for(data):
    assert parse_reply(data, head=False, ended=False) is None


def test_what_is_no_http_is_told():
    assert parse_reply(b"SSH-2.0\r\n\r\n", head=False, ended=False).text.startswith("no HTTP")


def test_a_closed_and_a_silent_peer_are_told_apart():
    left, right = socket.socketpair()
    with left, right:
        assert read_reply(left, patience=0.05).text == "silence"
        right.close()
        assert read_reply(left, patience=0.5).text == "closed"


def test_a_decision_id_is_found_in_header_or_body():
    assert Reply(status=403, headers=(("x-everyhop-decision", "abc"),)).decision == "abc"
    assert Reply(status=403, body=b'{"decision": "abc"}').decision == "abc"
    assert Reply(status=403, body=b"[1]").decision is None


def test_errors_have_short_names():
    alert = ssl.SSLError()
    alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    assert describe_error(alert) == "TLS alert: certificate required"
    assert describe_error(PermissionError()) == "EACCES"
    assert describe_error(ConnectionResetError()) == "closed"
