# SPDX-License-Identifier: Apache-2.0
import contextlib
import http.client
import io
import json
import socket
import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

import pytest

from everyhop.integrations._arrival import PEER_KEY
from everyhop.integrations.wsgi import EveryhopMiddleware
from everyhop.sdk import caller, current, require
from everyhop.sdk.model import Peer, Refusal

PEER = Peer(spiffe_id="spiffe://shop.example/service/orders", x5t="abc")


def environ_of(path="/orders/7", **more):
    from urllib.parse import unquote_to_bytes

    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path.partition("?")[0]).decode("latin-1"),
        "RAW_URI": path,
        "QUERY_STRING": path.partition("?")[2],
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "orders",
        "wsgi.input": io.BytesIO(),
        **more,
    }


class Done:
    status = None

    def start(self, status, headers, exc_info=None):
        self.status, self.headers = status, dict(headers)


def call(app, environ):
    done = Done()
    answer = app(environ, done.start)
    try:
        done.body = b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    return done


class Application:
    def __init__(self):
        self.reached = 0

    def __call__(self, environ, start_response):
        self.reached += 1
        self.caller = caller()
        self.body = environ["wsgi.input"].read() if isinstance(environ["wsgi.input"], io.BytesIO) else None
        start_response("200 OK", [])
        return [b"ok"]


def problem(done):
    return int(done.status[:3]), json.loads(done.body)["code"]


def test_a_verified_request_reaches_the_application_with_its_caller(guard):
    app = Application()
    done = call(EveryhopMiddleware(app, guard), environ_of("/orders/7?a=1", HTTP_TXN_TOKEN="t"))
    assert (done.status, done.body) == ("200 OK", b"ok")
    assert app.caller.service == "storefront"
    assert current() is None
    assert guard.request.raw_path == b"/orders/7?a=1"
    assert guard.request.query == b"a=1"
    assert (b"txn-token", b"t") in guard.request.headers


def test_a_refusal_is_a_problem(guard, refusal):
    guard.refusal = refusal
    app = Application()
    done = call(EveryhopMiddleware(app, guard), environ_of())
    assert problem(done) == (401, "TOKEN_EXPIRED")
    assert done.headers["www-authenticate"].startswith("Bearer ")
    assert app.reached == 0
    done = call(EveryhopMiddleware(app, guard), environ_of(REQUEST_METHOD="HEAD"))
    assert (done.status, done.body) == ("401 Unauthorized", b"")


@pytest.mark.parametrize(
    "more",
    [
        {"RAW_URI": "/orders", "PATH_INFO": "/admin"},
        {"RAW_URI": "/orders", "REQUEST_URI": "/admin", "PATH_INFO": "/orders"},
        {"RAW_URI": "http://orders/orders", "PATH_INFO": "/orders"},
        {"RAW_URI": "//evil/orders", "PATH_INFO": "/evil/orders"},
        {"RAW_URI": "/%FF", "PATH_INFO": "/\xef\xbf\xbd"},
    ],
)
def test_a_path_that_is_not_surely_the_one_sent_is_refused(guard, more):
    done = call(EveryhopMiddleware(Application(), guard), environ_of(**more))
    assert problem(done) == (400, "AMBIGUOUS_PATH")
    assert not guard.requests


def test_a_mounted_application_is_decided_on_the_whole_path(guard):
    environ = environ_of("/api/orders", SCRIPT_NAME="/api", PATH_INFO="/orders")
    call(EveryhopMiddleware(Application(), guard), environ)
    assert guard.request.raw_path == b"/api/orders"


@pytest.mark.parametrize("path", ["/orders/7", "/", "/a.b-c_d~e/@x:1"])
def test_a_decoded_path_with_one_spelling_is_taken(guard, path):
    environ = environ_of(path)
    del environ["RAW_URI"]
    call(EveryhopMiddleware(Application(), guard), environ)
    assert guard.request.raw_path == path.encode()


@pytest.mark.parametrize("decoded", ["/a b", "/a%2Fb", "/a;b", "/a\\b", "/\xe9", "/a?b", "/a#b", "/a\x00"])
def test_a_decoded_path_with_several_spellings_is_refused(guard, decoded):
    environ = {**environ_of(), "PATH_INFO": decoded}
    del environ["RAW_URI"]
    done = call(EveryhopMiddleware(Application(), guard), environ)
    assert problem(done) == (400, "AMBIGUOUS_PATH")


def test_parts_made_late_know_their_call_and_leave_nothing_behind(guard):
    closed = []

    class Parts:
        def __iter__(self):
            yield str(caller()).encode()
            yield str(caller()).encode()

        def close(self):
            closed.append(caller())

    def app(environ, start_response):
        start_response("200 OK", [])
        return Parts()

    answer = EveryhopMiddleware(app, guard)(environ_of(), Done().start)
    assert current() is None
    first = next(answer)
    assert current() is None
    assert (first, next(answer)) == (b"spiffe://shop.example/service/storefront",) * 2
    answer.close()
    assert closed[0] is not None
    assert current() is None


def test_a_servers_own_file_passes_as_it_is(guard):
    class Wrapper:
        def __iter__(self):
            return iter([b"x"])

    file = Wrapper()
    environ = environ_of(**{"wsgi.file_wrapper": Wrapper})
    assert EveryhopMiddleware(lambda e, s: file, guard)(environ, Done().start) is file


def test_a_raise_of_require_is_answered_too(guard):
    def app(environ, start_response):
        require("create")

    assert problem(call(EveryhopMiddleware(app, guard), environ_of())) == (403, "ACCESS_DENIED")
    assert current() is None


def test_an_answer_that_was_begun_is_replaced_while_that_is_possible(guard):
    def app(environ, start_response):
        start_response("200 OK", [])
        require("create")

    seen = []
    answer = EveryhopMiddleware(app, guard)(environ_of(), lambda *arguments: seen.append(arguments))
    assert json.loads(answer[0])["code"] == "ACCESS_DENIED"
    assert [len(one) for one in seen] == [2, 3]
    assert isinstance(seen[1][2][1], Refusal)


# -- bodies


def test_a_body_is_checked_and_left_to_be_read_again(guard):
    guard.checks_body = True
    app = Application()
    environ = environ_of(
        CONTENT_TYPE="application/json", CONTENT_LENGTH="7", **{"wsgi.input": io.BytesIO(b'{"a":1}rest')}
    )
    call(EveryhopMiddleware(app, guard), environ)
    assert guard.bodies == [(["application/json"], b'{"a":1}')]
    assert app.body == b'{"a":1}'


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"CONTENT_LENGTH": "1000"}, (413, "BODY_TOO_LARGE")),
        ({"wsgi.input_terminated": True}, (413, "BODY_TOO_LARGE")),
        ({"CONTENT_LENGTH": "-1"}, (400, "BODY_MALFORMED")),
        ({"CONTENT_LENGTH": "1e3"}, (400, "BODY_MALFORMED")),
        ({"CONTENT_LENGTH": "٣"}, (400, "BODY_MALFORMED")),
    ],
)
def test_lengths_that_are_refused(guard, more, expected):
    guard.checks_body = True
    app = Application()
    stream = io.BytesIO(b"x" * 1000)
    done = call(EveryhopMiddleware(app, guard), environ_of(**more, **{"wsgi.input": stream}))
    assert problem(done) == expected
    assert app.reached == 0
    assert stream.tell() <= 101


def test_a_body_that_ends_before_its_length_is_refused(guard):
    guard.checks_body = True
    app = Application()
    stream = io.BytesIO(b"12")  # of 123, and JSON as it stands
    done = call(EveryhopMiddleware(app, guard), environ_of(CONTENT_LENGTH="3", **{"wsgi.input": stream}))
    assert problem(done) == (400, "BODY_MALFORMED")
    assert (app.reached, guard.bodies) == (0, [])


def test_a_body_without_length_or_end_is_no_body(guard):
    guard.checks_body = True
    app = Application()
    call(EveryhopMiddleware(app, guard), environ_of(**{"wsgi.input": io.BytesIO(b"smuggled")}))
    assert guard.bodies == [([], b"")]
    assert app.body == b""


def test_no_body_is_read_before_the_caller_is_verified(guard, refusal):
    guard.checks_body = True
    guard.refusal = refusal
    stream = io.BytesIO(b"{}")
    call(EveryhopMiddleware(Application(), guard), environ_of(CONTENT_LENGTH="2", **{"wsgi.input": stream}))
    assert stream.tell() == 0


def test_a_refused_body_does_not_reach_the_application(guard):
    guard.checks_body = True
    guard.body_refusal = Refusal(422, "BODY_INVALID", "no")
    app = Application()
    assert problem(call(EveryhopMiddleware(app, guard), environ_of())) == (422, "BODY_INVALID")
    assert app.reached == 0


# -- who is at the other end


class Connection:
    def __init__(self, family, name):
        self.family, self.name = family, name

    def getsockname(self):
        if self.name is None:
            raise OSError
        return self.name


def test_only_the_workloads_own_socket_is_the_sidecar(guard, own_socket):
    wrapped = EveryhopMiddleware(Application(), guard, sidecar_socket=own_socket)
    unix, tcp = socket.AF_UNIX, socket.AF_INET
    cases = [
        ({"gunicorn.socket": Connection(unix, own_socket), "REMOTE_ADDR": ""}, True),
        ({"werkzeug.socket": Connection(unix, own_socket), "REMOTE_ADDR": "<local>"}, True),
        ({"REMOTE_ADDR": ""}, True),
        ({"gunicorn.socket": Connection(unix, "/tmp/other.sock"), "REMOTE_ADDR": ""}, False),
        ({"gunicorn.socket": Connection(tcp, own_socket), "REMOTE_ADDR": ""}, False),
        ({"gunicorn.socket": Connection(unix, None), "REMOTE_ADDR": ""}, False),
        ({"gunicorn.socket": None, "REMOTE_ADDR": "127.0.0.1"}, False),
        ({"REMOTE_ADDR": "127.0.0.1"}, False),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_REMOTE_ADDR": ""}, False),
    ]
    for more, expected in cases:
        call(wrapped, environ_of(**more))
        assert guard.request.via_sidecar is expected, more
    environ = environ_of()
    del environ["REMOTE_ADDR"]
    call(wrapped, environ)
    assert not guard.request.via_sidecar


def test_without_a_socket_of_ones_own_nothing_is_the_sidecar(guard, monkeypatch, tmp_path):
    monkeypatch.delenv("EVERYHOP_SOCKET", raising=False)
    call(EveryhopMiddleware(Application(), guard), environ_of(REMOTE_ADDR=""))
    assert not guard.request.via_sidecar
    never_bound = str(tmp_path / "app.sock")
    wrapped = EveryhopMiddleware(Application(), guard, sidecar_socket=never_bound)
    call(wrapped, environ_of(REMOTE_ADDR=""))
    assert not guard.request.via_sidecar


def test_the_peer_comes_from_the_connection(guard):
    wrapped = EveryhopMiddleware(Application(), guard)
    call(wrapped, environ_of(**{PEER_KEY: PEER}))
    assert guard.request.peer is PEER
    call(wrapped, environ_of(**{PEER_KEY: "orders"}, HTTP_X_EVERYHOP_CALLER="orders"))
    assert guard.request.peer is None


# -- real servers


class QuietHandler(WSGIRequestHandler):
    def address_string(self):
        return self.client_address[0] if self.client_address else ""

    def log_message(self, *_arguments):
        pass

    def get_environ(self):
        self.client_address = self.client_address or ("", 0)
        return super().get_environ()


class UnixWsgiServer(ThreadingMixIn, WSGIServer):
    address_family = socket.AF_UNIX
    daemon_threads = True

    def server_bind(self):
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "unix", 0
        self.setup_environ()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("orders", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self.path)


@contextlib.contextmanager
def running(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(connection, target, **headers):
    with contextlib.closing(connection):
        connection.putrequest("GET", target, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()


# Werkzeug keeps the target, so the guard gets it; wsgiref decodes, and what has one spelling then is what is served.
TARGETS = [
    ("/orders/7", {"wsgiref": 200, "werkzeug": 200}),
    ("/orders/7?x=1", {"wsgiref": 200, "werkzeug": 200}),
    ("/a%2Fb", {"wsgiref": 200, "werkzeug": 200}),
    ("/a%20b", {"wsgiref": 400, "werkzeug": 200}),
    ("//orders", {"wsgiref": 200, "werkzeug": 200}),
    ("/a;b", {"wsgiref": 400, "werkzeug": 200}),
]


def werkzeug_server(app, address):
    from werkzeug.serving import WSGIRequestHandler as Handler, make_server

    class Quiet(Handler):
        def log(self, *_arguments):
            pass

    return make_server(address, 0, app, threaded=True, request_handler=Quiet)


@pytest.mark.parametrize("kind", ["wsgiref", "werkzeug"])
@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_servers(guard, kind, family, tmp_path_factory):
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ehwsgi") as directory:
        path = f"{directory}/app.sock"
        app = EveryhopMiddleware(Application(), guard, sidecar_socket=path)
        if kind == "werkzeug":
            server = werkzeug_server(app, f"unix://{path}" if family == "unix" else "127.0.0.1")
        elif family == "unix":
            server = UnixWsgiServer(path, QuietHandler)
            server.set_app(app)
        else:
            server = WSGIServer(("127.0.0.1", 0), QuietHandler)
            server.set_app(app)

        def connect():
            if family == "unix":
                return UnixConnection(path)
            return http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)

        with running(server):
            for target, expected in TARGETS:
                status, body = ask(connect(), target, X_Everyhop_Caller="spiffe://shop.example/service/x")
                assert status == expected[kind], (target, body)
                if status == 400:
                    assert json.loads(body)["code"] == "AMBIGUOUS_PATH"
                elif (
                    kind == "werkzeug"
                ):  # http.server drops a second slash at the front before anybody sees it
                    assert guard.request.raw_path == target.replace("//", "/").encode()
            assert all(one.via_sidecar is (family == "unix") for one in guard.requests)


def test_the_reference_handler_takes_a_refusal(guard, refusal):
    guard.refusal = refusal
    out = io.BytesIO()
    environ = {**environ_of(), "SERVER_PROTOCOL": "HTTP/1.1"}
    handler = ServerHandler(io.BytesIO(), out, io.StringIO(), environ)
    handler.request_handler = None
    handler.close = lambda: None
    handler.run(EveryhopMiddleware(Application(), guard))
    assert b" 401 Unauthorized" in out.getvalue()


def test_what_a_caller_may_not_claim_is_hidden_off_the_sidecars_socket(guard):
    from tests.support.enforcement_points import ask_wsgi

    seen = {}

    def app(environ, start_response):
        seen.update(environ)
        start_response("200 OK", [])
        return [b""]

    headers = [("X-Everyhop-Caller", "root"), ("Forwarded", "for=x"), ("Txn-Token", "x"), ("A", "b")]
    assert ask_wsgi(EveryhopMiddleware(app, guard), None, headers)[0] == 200
    assert {name for name in seen if name.startswith("HTTP_")} == {"HTTP_HOST", "HTTP_A"}
