# SPDX-License-Identifier: Apache-2.0
"""Every mistake of a policy, with its place, its code and what would mend it."""

from __future__ import annotations

import pytest

from everyhop.core.errors import PolicyError
from everyhop.policy import _yaml, parse, parse_policy
from everyhop.policy._problems import MAX_PROBLEMS

HEAD = "version: 1\ntrust_domain: shop.example\n"
SERVICES = """\
services:
  shop: {workload: [{run: true}]}
  orders:
    operations:
      list: GET /orders
      read: "GET /orders/{id}"
  payments:
    operations: {charge: POST /charges}
  client: {}
  ledger: {tcp: 5432}
"""
BASE = HEAD + SERVICES


def problems(text: str | bytes | dict[str, bytes]) -> list[tuple[str, int, int, str]]:
    """Return code, line, column and rendered text of every problem."""
    files = text if isinstance(text, dict) else {"p.yaml": text.encode() if isinstance(text, str) else text}
    with pytest.raises(PolicyError) as caught:
        parse_policy(files)
    return [(p.code, p.span.line, p.span.column, p.render()) for p in caught.value.problems]


def only(text: str | bytes) -> tuple[str, int, int, str]:
    """Return the one problem there is."""
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


# --- what is no document -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "code", "line", "column"),
    [
        (b"", "empty", 1, 1),
        (b"# nothing\n", "empty", 1, 1),
        (b"version: 1\nx: \xff\n", "not-utf8", 2, 4),
        ("version: 1\n".encode("utf-16"), "not-utf8", 1, 1),
        (b"version: 1\nx: a\x00b\n", "bad-character", 2, 5),
        ("version: 1\nx: a\u202eb\n".encode(), "bad-character", 2, 5),
        ("version: 1\u0085x: 2".encode(), "bad-character", 1, 11),
        (b"version: 1\nservices:\n\tshop: {}\n", "syntax", 3, 1),
        (b"a: [b\n", "syntax", 2, 1),
        (b"a: b: c\n", "syntax", 1, 5),
        (b"version: 1\n---\nversion: 1\n", "documents", 2, 1),
        (b"[" * 40, "too-deep", 1, 13),
        (b"a: " * 3, "syntax", 1, 5),
    ],
)
def test_what_is_no_single_utf8_yaml_document(content, code, line, column):
    found = only(content)
    assert found[:3] == (code, line, column), found


@pytest.mark.parametrize(
    ("content", "codes"),
    [
        ("x: &a 1\n", ["anchor", "unknown-key"]),
        ("x: *a\n", ["alias"]),
        ("x: !!str 1\n", ["tag", "unknown-key"]),
        ("x: ! 1\n", ["tag", "unknown-key"]),
        ("<<: {version: 1}\n", ["merge"]),
        ("%YAML 1.1\n---\nversion: 2\n", ["directive", "version"]),
        ("? [a]\n: b\n", ["key"]),
        ("? {a: b}\n: c\n", ["key"]),
        ("version: 1\nversion: 1\n", ["missing-key", "duplicate-key"]),
        ("- version\n", ["type"]),
        ("version\n", ["type"]),
    ],
)
def test_what_the_language_leaves_out_of_yaml(content, codes):
    found = [code for code, *_ in problems(content)]
    assert [code for code in codes if code not in found] == []


def test_a_tab_is_named():
    assert "a tab cannot indent YAML (use spaces)" in only("services:\n\tshop: {}\n")[3]


def test_a_route_without_quotes_inside_braces_is_explained():
    text = only("version: 1\nservices: {orders: {operations: {read: GET /orders/{id}}}}\n")
    assert text[0] == "syntax"
    assert 'needs quotes: "GET /orders/{id}"' in text[3]


def test_limits_on_size_count_and_files(monkeypatch):
    assert only(b"#" * (_yaml.MAX_FILE_BYTES + 1))[0] == "too-large"
    monkeypatch.setattr(_yaml, "MAX_NODES", 10)
    assert only(BASE)[0] == "too-large"
    monkeypatch.setattr(parse, "MAX_FILES", 1)
    assert problems({"a.yaml": b"", "b.yaml": b""}) == [
        (
            "too-large",
            1,
            1,
            f"a.yaml:1:1: error: a policy has at most 1 files and {parse.MAX_TOTAL_BYTES} bytes [too-large]",
        )
    ]
    assert problems({})[0][0] == "empty"


def test_no_more_problems_than_anyone_reads():
    assert len(problems("\n".join(f"key{n}: 1" for n in range(1000)))) == MAX_PROBLEMS
    assert len(problems("version: 1\n" + "version: 1\n" * 1000)) <= MAX_PROBLEMS


# --- the top ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            SERVICES + "trust_domain: a\n",
            "1:1: error: policy: 'version' missing (start the file with version: 1)",
        ),
        ("version: 1\n" + SERVICES, "1:1: error: policy: 'trust_domain' missing (for example"),
        (
            BASE.replace("version: 1", "version: 2"),
            "1:10: error: version '2' of the policy language is not known here",
        ),
        (BASE.replace("version: 1", "version: [1]"), "1:10: error: version: expected text, found a list"),
        (BASE.replace("version: 1", "version:"), "1:9: error: policy: 'version' has no value"),
        (
            BASE.replace("shop.example", "Shop.Example"),
            "2:15: error: trust_domain: a trust domain is written in lower case (write shop.example)",
        ),
        (BASE.replace("shop.example", "shop/x"), "2:15: error: trust_domain: 'shop/x' is not a trust domain"),
        (BASE.replace("shop.example", "{}"), "2:15: error: trust_domain: expected text, found a mapping"),
        (HEAD, "1:1: error: policy: no service is declared"),
        (HEAD + "services: []\n", "3:11: error: services: expected a mapping, found a list"),
        (BASE + "alow: []\n", "13:1: error: policy: unknown key 'alow' (did you mean 'allow'?)"),
        (BASE + "zzz: 1\n", "13:1: error: policy: unknown key 'zzz' (known here: version, "),
        (BASE + "allow: []\n", "13:8: error: allow: the list is empty (remove the key)"),
        (BASE + "allow: x\n", "13:8: error: allow: expected a list, found the text 'x'"),
        (BASE + "identity: [a]\n", "13:11: error: identity: expected text, found a list"),
    ],
)
def test_mistakes_at_the_top(text, expected):
    assert f"p.yaml:{expected}" in only(text)[3]


@pytest.mark.parametrize("key", ["federation", "gateway", "secrets"])
def test_keys_of_later_chapters_are_refused_by_name(key):
    code, line, _, text = only(BASE + f"{key}: {{a: b}}\n")
    assert (code, line) == ("not-supported-yet", 13)
    assert f"{key!r} is not supported yet in this version" in text


@pytest.mark.parametrize(
    "entry",
    [
        "services: {a: {secrets: [x]}}",
        "services: {a: {workload: [{run: true, kubernetes: {namespace: x}}]}}",
        "services: {a: {operations: {x: {route: GET /, allow_encoded_slash: true}}}}",
        "services: {a: {operations: {x: GET /}}}\nallow: [{from: a, to: a, operations: [x], secrets: x}]",
        "services: {a: {operations: {x: GET /}}}\ntests: [{from: a, to: a, call: GET /, expect: deny, gateway: x}]",
        "services: {a: {identity: '/ns/{namespace}'}}",
    ],
)
def test_they_are_refused_everywhere(entry):
    assert [code for code, *_ in problems(HEAD + entry)] == ["not-supported-yet"]


# --- services --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Shop", "1shop", "-shop", "shop_1", "shöp", "s" * 64, "''", "a.b", "a b"])
def test_names_that_no_service_can_have(name):
    assert only(HEAD + f"services:\n  {name}: {{}}\n  ok: {{}}\n")[:3] == ("name", 4, 3)


@pytest.mark.parametrize("name", ["any", "all"])
def test_names_with_a_meaning(name):
    assert "has a meaning in rules" in only(HEAD + f"services:\n  {name}: {{}}\n  ok: {{}}\n")[3]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("x", "expected a mapping, found the text 'x'"),
        ("", "expected a mapping, found nothing"),
        ("{probe: [GET /]}", "unknown key 'probe' (did you mean 'probes'?)"),
        ("{tcp: 0}", "0 is not between 1 and 65535"),
        ("{tcp: 65536}", "65536 is not between"),
        ("{tcp: 99999999999}", "is not a number from 1 to 65535"),
        ("{tcp: 0x50}", "'0x50' is not a number from 1 to 65535"),
        ("{tcp: 05}", "'05' is not a number"),
        ("{tcp: 5_0}", "'5_0' is not a number"),
        ("{tcp: -1}", "'-1' is not a number"),
        ("{tcp: \u0665}", "is not a number"),
        ("{tcp: 1, operations: {a: GET /}}", "a tcp service has no operations"),
        ("{tcp: 1, probes: [GET /]}", "a tcp service has no probes"),
        ("{operations: {}}", "expected a mapping of names to routes, found an empty one"),
        ("{operations: [GET /]}", "expected a mapping of names to routes, found a list"),
        ("{operations: {all: GET /}}", "'all' cannot name an operation"),
        ("{operations: {1a: GET /}}", "'1a' cannot name an operation"),
        ("{operations: {a: [GET /]}}", "operation 'a': expected text, found a list"),
        ("{operations: {a: {}}}", "give exactly one of route, grpc and websocket"),
        ("{operations: {a: {route: GET /, grpc: a/b}}}", "give exactly one of"),
        ("{operations: {a: {rout: GET /}}}", "unknown key 'rout' (did you mean 'route'?)"),
        (
            "{operations: {a: GET /x, b: GET /x}}",
            "'b' and 'a' both are GET /x (a request must belong to one operation)",
        ),
        ("{operations: {a: 'GET /{x}', b: 'GET /{y}'}}", "'b' and 'a' both are GET /{x}"),
        ("{operations: {a: 'GET /{x...}', b: {websocket: '/{y...}'}}}", "both are GET /{x...}"),
        ("{operations: {a: POST /s.S/M, b: {grpc: s.S/M}}}", "both are POST /s.S/M"),
        ("{operations: {a: GET /x}, probes: [GET /x]}", "'probes[0]' and 'a' both are GET /x"),
        ("{probes: []}", "probes: the list is empty"),
        ("{probes: GET /}", "probes: expected a list, found the text 'GET /'"),
        ("{probes: [{websocket: /x}]}", "a probe cannot be a WebSocket"),
        ("{probes: [{}]}", "give exactly one of"),
        ("{workload: {run: true}}", "workload: expected a list, found a mapping"),
        ("{workload: []}", "workload: the list is empty"),
        ("{workload: [{}]}", "would match every process"),
        ("{workload: [run]}", "expected a mapping, found the text 'run'"),
        ("{workload: [{run: false}]}", "'false' is not true (leave the key out otherwise)"),
        ("{workload: [{run: yes}]}", "'yes' is not true"),
        ("{workload: [{run: true}, {run: true}]}", "the same alternative twice"),
        ("{workload: [{unix: {}}]}", "unix: give at least one of uid, user"),
        ("{workload: [{unix: root}]}", "unix: expected a mapping"),
        ("{workload: [{unix: {usr: a}}]}", "unknown key 'usr' (did you mean 'user'?)"),
        ("{workload: [{unix: {uid: 4294967295}}]}", "4294967295 is not between 0 and 4294967294"),
        ("{workload: [{unix: {user: 'a b'}}]}", "'a b' is not a user name"),
        ("{workload: [{unix: {user: '0'}}]}", "'0' is not a user name"),
        ("{workload: [{unix: {group: 'a:b'}}]}", "'a:b' is not a group name"),
        ("{workload: [{unix: {path: bin/x}}]}", "'bin/x' is not an absolute path"),
        ("{workload: [{unix: {path: //bin/x}}]}", "is not an absolute path"),
        ("{workload: [{unix: {path: /bin/}}]}", "is not an absolute path"),
        ("{workload: [{unix: {path: /bin/../x}}]}", "has a dot segment"),
        ("{workload: [{unix: {sha256: ABC}}]}", "'ABC' is not 64 lower-case hex digits"),
        (f"{{workload: [{{unix: {{sha256: {'A' * 64}}}}}]}}", "is not 64 lower-case hex digits"),
        ("{identity: shop}", "identity: 'shop' does not start with /"),
        ("{identity: /a//b}", "identity: "),
        ("{identity: /a/../b}", "bad path segment '..'"),
        ("{identity: /a/}", "bad path segment ''"),
        ("{identity: '/a b'}", "bad path segment"),
        ("{identity: [a]}", "identity: expected text, found a list"),
        ("{identity: /everyhop/server}", "belong to everyhop itself"),
        ("{identity: /everyhop}", "belong to everyhop itself"),
        ("{identity: '/{}'}", "the placeholder {} is not supported yet"),
        ("{identity: /service/ok}", "services 'ok' and 'x' would both be spiffe://shop.example/service/ok"),
    ],
)
def test_mistakes_in_a_service(entry, expected):
    _, line, column, text = only(HEAD + f"services:\n  ok: {{}}\n  x: {entry}\n")
    assert expected in text
    assert line == 5
    assert column >= 3


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ("GET", "'GET' is not METHOD /path (for example GET /orders/{id})"),
        ("/x", "is not METHOD /path"),
        ("get /x", "methods are case-sensitive: 'get' (write GET)"),
        ("FETCH /x", "unknown method 'FETCH' (one of GET, "),
        ("CONNECT /x", "CONNECT cannot be an operation"),
        ("TRACE /x", "TRACE cannot be an operation"),
        ("GET  /x", "exactly one space"),
        ("GET x", "the path 'x' does not start with /"),
        ("GET http://h/x", "does not start with /"),
        ("GET /x/", None),
        ("GET //x", "the path has an empty segment (//)"),
        ("GET /x//", "the path has an empty segment"),
        ("GET /./x", "dot segment (.)"),
        ("GET /x/..", "dot segment (..)"),
        ("GET /x?y=1", "the character '?' cannot stand in a path (a query is not part of the path)"),
        ("GET /%41", "the character '%' cannot stand in a path (write the path without percent-encoding)"),
        ("GET /x;y", "the character ';'"),
        ("GET /x y", "the character ' '"),
        ("GET /é", "the character 'é'"),
        ("GET /x-{id}", "'x-{id}' is not a parameter (a parameter is a whole segment"),
        ("GET /{id", "is not a parameter"),
        ("GET /{}", "is not a parameter"),
        ("GET /{a-b}", "is not a parameter"),
        ("GET /{a..}", "is not a parameter"),
        ("GET /{a...}/b", "{a...} takes the rest of the path, so it can only be last"),
        ("GET /{a}/{a}", "two parameters of one path have the same name"),
        ("GET /" + "a" * 1024, "at most 1024 characters"),
        ("GET /" + "a/" * 64, "at most 64 segments"),
    ],
)
def test_mistakes_in_a_route(route, expected):
    text = HEAD + f'services:\n  x: {{operations: {{a: "{route}"}}}}\n'
    if expected is None:
        assert parse_policy({"p.yaml": text.encode()})
    else:
        code, line, column, rendered = only(text)
        assert (code, line, column) == ("route", 4, 23)
        assert expected in rendered


@pytest.mark.parametrize("name", ["/s.S/M", "S", "s.S/", "s..S/M", "s.S/M/N", "1s/M", "s.S/M-N", "s.S M"])
def test_mistakes_in_a_grpc_method(name):
    text = only(HEAD + f"services:\n  x: {{operations: {{a: {{grpc: '{name}'}}}}}}\n")[3]
    assert "is not package.Service/Method" in text
    assert ("no leading slash" in text) == name.startswith("/")


# --- rules and tests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("allow: [x]", "allow[0]: expected a mapping, found the text 'x'"),
        ("allow: [{}]", "allow[0]: 'from' and 'to' missing"),
        ("allow: [{from: shop}]", "allow[0]: 'to' missing"),
        ("allow: [{from: shop, to: }]", "allow[0]: 'to' has no value"),
        (
            "allow: [{from: shop, to: orders}]",
            "allow[0]: 'operations' missing for service 'orders' (a list of names, or all)",
        ),
        ("allow: [{from: shop, to: any}]", "allow[0]: 'operations' missing for 'any'"),
        ("allow: [{from: shop, to: [ledger, orders]}]", "'operations' missing for service 'orders'"),
        (
            "allow: [{from: shop, to: paymnets, operations: all}]",
            "unknown service 'paymnets' (did you mean 'payments'?)",
        ),
        (
            "allow: [{from: shopp, to: orders, operations: all}]",
            "allow[0]: from: unknown service 'shopp' (did you mean 'shop'?)",
        ),
        (
            "allow: [{from: spiffe://shop.example/service/shop, to: orders, operations: all}]",
            "unknown service",
        ),
        ("allow: [{from: [shop, any], to: orders, operations: all}]", "'any' stands alone"),
        ("allow: [{from: [shop, shop], to: orders, operations: all}]", "'shop' is here twice"),
        ("allow: [{from: [[shop]], to: orders, operations: all}]", "from: expected text, found a list"),
        (
            "allow: [{from: [], to: orders, operations: all}]",
            "expected a service, a list of services or any, found an empty list",
        ),
        ("allow: [{from: {a: b}, to: orders, operations: all}]", "or any, found a mapping"),
        ("allow: [{from: all, to: orders, operations: all}]", "unknown service 'all'"),
        (
            "allow: [{from: shop, to: orders, operations: list}]",
            "expected a list of names or all, found the text 'list' ([list])",
        ),
        ("allow: [{from: shop, to: orders, operations: []}]", "found an empty list"),
        ("allow: [{from: shop, to: orders, operations: {a: b}}]", "found a mapping"),
        ("allow: [{from: shop, to: orders, operations: [list, list]}]", "operations: 'list' is here twice"),
        (
            "allow: [{from: shop, to: orders, operations: [[list]]}]",
            "operations: expected text, found a list",
        ),
        (
            "allow: [{from: shop, to: orders, operations: [lst]}]",
            "service 'orders' has no operation 'lst' (did you mean 'list'?)",
        ),
        ("allow: [{from: shop, to: orders, operations: ['probes[0]']}]", "has no operation 'probes[0]'"),
        (
            "allow: [{from: shop, to: any, operations: [lst]}]",
            "no service has an operation 'lst' (did you mean 'list'?)",
        ),
        (
            "allow: [{from: shop, to: [orders, payments], operations: [list]}]",
            "service 'payments' has no operation 'list'",
        ),
        (
            "allow: [{from: shop, to: ledger, operations: all}]",
            "'ledger' is a tcp service and has no operations",
        ),
        (
            "deny: [{from: shop, to: [ledger, orders], operations: [list]}]",
            "'ledger' is a tcp service and has no operations",
        ),
        ("allow: [{from: shop, to: client, operations: all}]", "service 'client' has no operations to allow"),
        ("allow: [{from: shop, to: orders, operations: all, id: 'allow[1]'}]", "'allow[1]' is not an id"),
        ("allow: [{from: shop, to: ledger, id: a}, {from: shop, to: ledger, id: a}]", "allow[1]: id: 'a'"),
        ("deny: [{from: shop, to: orders, reason: ' '}]", "a reason is one line"),
        ('deny: [{from: shop, to: orders, reason: "a\\nb"}]', "a reason is one line"),
        (f"deny: [{{from: shop, to: orders, reason: {'x' * 301}}}]", "at most 300 printable characters"),
        ("deny: [{from: shop, to: orders, reason: [a]}]", "reason: expected text, found a list"),
        ("deny: [{from: shop, to: orders, resaon: a}]", "unknown key 'resaon' (did you mean 'reason'?)"),
        ("tests: [x]", "tests[0]: expected a mapping"),
        ("tests: [{from: shop, to: orders, call: GET /}]", "tests[0]: 'expect' missing"),
        ("tests: [{from: shop, to: orders, expect: deny}]", "give either call or tcp: true"),
        (
            "tests: [{from: shop, to: orders, expect: deny, call: GET /, tcp: true}]",
            "give either call or tcp: true",
        ),
        ("tests: [{from: shop, to: orders, expect: deny, tcp: 1}]", "tcp: '1' is not true"),
        ("tests: [{from: shop, to: orders, expect: no, call: GET /}]", "expect: 'no' is not allow or deny"),
        ("tests: [{from: shop, to: orders, expect: deny, call: /x}]", "'/x' is not METHOD /path"),
        ("tests: [{from: shop, to: orders, expect: deny, call: 'GET '}]", "is not METHOD /path"),
        ("tests: [{from: shop, to: orders, expect: deny, call: 'G(T /'}]", "is not METHOD /path"),
        ("tests: [{from: shop, to: orders, expect: deny, call: [a]}]", "call: expected text, found a list"),
        ("tests: [{from: shp, to: orders, expect: deny, call: GET /}]", "from: unknown service 'shp'"),
        ("tests: [{from: shop, to: ordres, expect: deny, call: GET /}]", "to: unknown service 'ordres'"),
        (
            "tests: [{from: 'spiffe://UP/a b', to: orders, expect: deny, call: GET /}]",
            "from: 'spiffe://UP/a b' is not a SPIFFE ID",
        ),
    ],
)
def test_mistakes_in_rules_and_tests(entry, expected):
    _, line, _, text = only(BASE + entry + "\n")
    if "id: a}, {" in entry:
        expected = "the id 'a' is used twice (first at p.yaml:13:"
    assert expected in text
    assert line == 13


def test_one_mistake_causes_no_others():
    text = (
        BASE.replace("GET /orders\n", "GET orders\n")
        + "allow: [{from: shop, to: orders, operations: [list]}]\n"
    )
    assert only(text)[0] == "route"


def test_all_mistakes_come_at_once_in_the_order_of_the_text():
    text = (
        BASE.replace("tcp: 5432", "tcp: x")
        + "allow:\n  - {from: shp, to: orders, operations: [lsit, read]}\nvesion: 1\n"
    )
    assert [(code, line) for code, line, *_ in problems(text)] == [
        ("value", 12),
        ("unknown-service", 14),
        ("unknown-operation", 14),
        ("unknown-key", 15),
    ]


# --- several files ---------------------------------------------------------------------------------------------------


def test_files_of_one_policy_agree():
    first, second = BASE.encode(), b"version: 1\ntrust_domain: other.example\nidentity: /x\n"
    found = problems({"a.yaml": first + b"identity: '/y/{service}'\n", "b.yaml": second})
    assert [text for *_, text in found] == [
        "b.yaml:2:15: error: trust_domain is 'other.example' here, but 'shop.example' at a.yaml:2:15 (the files of one policy agree) [conflict]",
        "b.yaml:3:11: error: identity is '/x' here, but '/y/{service}' at a.yaml:13:11 (the files of one policy agree) [conflict]",
    ]


def test_a_service_is_declared_once():
    found = problems({"a.yaml": BASE.encode(), "b.yaml": b"version: 1\nservices: {orders: {}}\n"})
    assert [text for *_, text in found] == [
        "b.yaml:2:12: error: service 'orders' is declared twice (first at a.yaml:5:3) [duplicate]"
    ]


def test_each_file_names_its_version():
    assert problems({"a.yaml": BASE.encode(), "b.yaml": b"identity: '/x/{service}'\n"})[0][0] == "missing-key"


def test_a_broken_file_does_not_make_the_names_of_others_unknown():
    rules = b"version: 1\nallow: [{from: shop, to: orders, operations: all}]\n"
    found = problems({"a.yaml": b"a: [", "b.yaml": rules, "c.yaml": b"version: 1\nservices: {x: {tcp: 0}}\n"})
    assert [(code, text[:6]) for code, _, _, text in found] == [("syntax", "a.yaml"), ("value", "c.yaml")]
