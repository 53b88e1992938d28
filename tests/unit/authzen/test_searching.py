# SPDX-License-Identifier: Apache-2.0
"""Search: what is found, how it is cut into pages, and what a page token is good for."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from tests.support.decision_points import RecordsPoint

from everyhop.authzen import Bounds, Kind, PageTokens, answer_evaluation, answer_search
from everyhop.authzen.paging import TOKEN_LIFE
from everyhop.core.errors import InputError
from everyhop.core.secret import Secret
from everyhop.jose.encoding import decode_base64url, encode_base64url

NOW = datetime(2026, 6, 1, tzinfo=UTC)
TOKENS = PageTokens(Secret(b"k" * 32))
READ = {"name": "read"}
R1 = {"type": "record", "id": "r1"}
READERS = {"subject": {"type": "user"}, "action": READ, "resource": R1}


def search(point, kind, query, *, tokens=TOKENS, now=NOW, bounds=None):
    return answer_search(point, kind, json.dumps(query).encode(), tokens=tokens, now=now, bounds=bounds)


def first_page(point, **page):
    answer = search(point, Kind.SUBJECT, {**READERS, "page": {"limit": 1, **page}})
    assert answer["page"]["next_token"]
    return answer


def next_page(point, token, *, query=READERS, kind=Kind.SUBJECT, now=NOW, tokens=TOKENS, **page):
    return search(point, kind, {**query, "page": {"token": token, **page}}, now=now, tokens=tokens)


# --- refusals


def test_a_token_is_for_one_pep_alone():
    token = first_page(RecordsPoint())["page"]["next_token"]
    with pytest.raises(InputError, match="not one for this query"):
        next_page(RecordsPoint(asker="spiffe://shop.example/service/orders"), token)


@pytest.mark.parametrize(
    ("kind", "query"),
    [
        (Kind.SUBJECT, {**READERS, "action": {"name": "write"}}),
        (Kind.SUBJECT, {**READERS, "action": {"name": "read", "properties": {"a": 1}}}),
        (Kind.SUBJECT, {**READERS, "resource": {"type": "record", "id": "r2"}}),
        (Kind.SUBJECT, {**READERS, "subject": {"type": "service"}}),
        (Kind.SUBJECT, {**READERS, "context": {"ip": "192.0.2.1"}}),
        (Kind.RESOURCE, {"subject": {"type": "user", "id": "ann"}, "action": READ, "resource": R1}),
        (Kind.ACTION, {"subject": {"type": "user", "id": "ann"}, "resource": R1}),
    ],
)
def test_a_token_is_for_one_query_alone(kind, query):
    token = first_page(RecordsPoint())["page"]["next_token"]
    with pytest.raises(InputError, match="not one for this query"):
        next_page(RecordsPoint(), token, kind=kind, query=query)


def test_a_token_is_for_one_page_length():
    token = first_page(RecordsPoint())["page"]["next_token"]
    with pytest.raises(InputError, match=r"page\.limit"):
        next_page(RecordsPoint(), token, limit=2)
    assert next_page(RecordsPoint(), token, limit=1)["results"] == next_page(RecordsPoint(), token)["results"]


def test_a_token_is_for_one_policy():
    token = first_page(RecordsPoint())["page"]["next_token"]
    with pytest.raises(InputError, match="policy has changed"):
        next_page(RecordsPoint(snapshot="b" * 64), token)


def test_a_token_is_for_a_while():
    token = first_page(RecordsPoint())["page"]["next_token"]
    next_page(RecordsPoint(), token, now=NOW + TOKEN_LIFE)
    with pytest.raises(InputError, match="too old"):
        next_page(RecordsPoint(), token, now=NOW + TOKEN_LIFE + timedelta(seconds=1))


def test_a_token_is_for_one_key():
    token = first_page(RecordsPoint())["page"]["next_token"]
    with pytest.raises(InputError, match="not one for this query"):
        next_page(RecordsPoint(), token, tokens=PageTokens(Secret(b"l" * 32)))


def test_no_bit_of_a_token_can_be_changed():
    token = first_page(RecordsPoint())["page"]["next_token"]
    raw = decode_base64url(token)
    for index in range(len(raw)):
        changed = bytearray(raw)
        changed[index] ^= 1
        with pytest.raises(InputError):
            next_page(RecordsPoint(), encode_base64url(bytes(changed)))
    for other in (token[:-1], token + "A", token + "=", "é", "A" * 40, " " + token, token[:40]):
        with pytest.raises(InputError):
            next_page(RecordsPoint(), other)


# --- what is found


def test_what_is_found_is_what_an_evaluation_permits():
    point = RecordsPoint()
    for action in ("read", "write", "delete", "fly"):
        for name in point.records:
            query = {**READERS, "action": {"name": action}, "resource": {"type": "record", "id": name}}
            found = {entity["id"] for entity in search(point, Kind.SUBJECT, query)["results"]}
            permitted = {
                who
                for who in point.roles
                if answer_evaluation(
                    point, json.dumps({**query, "subject": {"type": "user", "id": who}}).encode()
                )["decision"]
            }
            assert found == permitted


def test_resources_and_actions():
    point = RecordsPoint()
    ben = {"type": "user", "id": "ben"}
    answer = search(
        point, Kind.RESOURCE, {"subject": ben, "action": {"name": "write"}, "resource": {"type": "record"}}
    )
    assert answer["results"] == [{"type": "record", "id": "r2"}]
    assert "page" not in answer
    answer = search(point, Kind.ACTION, {"subject": ben, "resource": {"type": "record", "id": "r2"}})
    assert answer["results"] == [{"name": "read"}, {"name": "write"}]


@pytest.mark.parametrize(
    ("kind", "query"),
    [
        (Kind.SUBJECT, {**READERS, "subject": {"type": "spaceship"}}),
        (
            Kind.RESOURCE,
            {"subject": {"type": "user", "id": "ann"}, "action": READ, "resource": {"type": "planet"}},
        ),
        (Kind.ACTION, {"subject": {"type": "user", "id": "ann"}, "resource": {"type": "planet", "id": "x"}}),
        (Kind.ACTION, {"subject": {"type": "user", "id": "nobody"}, "resource": R1}),
    ],
)
def test_nothing_is_found_of_what_nobody_knows(kind, query):
    assert search(RecordsPoint(), kind, query)["results"] == []
    assert search(RecordsPoint(), kind, {**query, "page": {"limit": 3}})["page"] == {
        "next_token": "",
        "count": 0,
    }


# --- pages


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50, 1000])
@pytest.mark.parametrize("repeat_limit", [True, False])
def test_pages_together_are_the_whole(limit, repeat_limit):
    roles = {f"u{n:03}": "clerk" if n % 3 else "none" for n in range(40)}
    point = RecordsPoint(roles=roles)
    query = {**READERS, "action": {"name": "write"}}
    whole = search(point, Kind.SUBJECT, query)["results"]
    page = {"limit": limit}
    seen = []
    while True:
        answer = search(point, Kind.SUBJECT, {**query, "page": page})
        assert answer["page"]["count"] == len(answer["results"]) <= limit
        seen += answer["results"]
        if not answer["page"]["next_token"]:
            break
        assert len(answer["results"]) == limit
        page = {"token": answer["page"]["next_token"], **({"limit": limit} if repeat_limit else {})}
    assert seen == whole
    assert len(whole) == 26


def test_the_last_full_page_says_that_it_is_the_last():
    answer = search(RecordsPoint(), Kind.SUBJECT, {**READERS, "page": {"limit": 3}})
    assert answer["page"] == {"next_token": "", "count": 3}
    # cy may not write, so after ann and ben nothing more is found, though somebody is left to ask about
    query = {**READERS, "action": {"name": "write"}, "page": {"limit": 1}}
    assert search(RecordsPoint(), Kind.SUBJECT, query)["page"] == {"next_token": "", "count": 1}


def test_more_than_one_answer_holds_is_never_cut_in_silence():
    point = RecordsPoint(roles={f"u{n:03}": "clerk" for n in range(25)})
    answer = search(point, Kind.SUBJECT, READERS, bounds=Bounds(results=10, asked=100))
    assert len(answer["results"]) == 10
    following = search(
        point,
        Kind.SUBJECT,
        {**READERS, "page": {"token": answer["page"]["next_token"]}},
        bounds=Bounds(results=100, asked=100),
    )
    assert len(following["results"]) == 15


def test_a_walk_that_costs_too_much_goes_on_in_the_next_page():
    point = RecordsPoint(roles={f"u{n:03}": "none" for n in range(24)} | {"zoe": "clerk"})
    query = {**READERS, "action": {"name": "write"}}
    page, seen, answers = {}, [], 0
    while True:
        point.probed = 0
        answer = search(point, Kind.SUBJECT, {**query, "page": page}, bounds=Bounds(results=5, asked=10))
        assert point.probed <= 10
        answers += 1
        seen += answer["results"]
        if not answer["page"]["next_token"]:
            break
        page = {"token": answer["page"]["next_token"]}
    assert seen == [{"type": "user", "id": "zoe"}]
    assert answers == 3


def test_a_limit_of_nothing_only_tells_whether_there_is_something():
    answer = search(RecordsPoint(), Kind.SUBJECT, {**READERS, "page": {"limit": 0}})
    assert answer["results"] == []
    assert answer["page"]["next_token"]
    nobody = {**READERS, "action": {"name": "fly"}, "page": {"limit": 0}}
    assert search(RecordsPoint(), Kind.SUBJECT, nobody)["page"]["next_token"] == ""


def test_an_empty_page_and_an_empty_token_begin_at_the_beginning():
    for page in ({}, {"token": ""}, {"future": 1}):
        answer = search(RecordsPoint(), Kind.SUBJECT, {**READERS, "page": page})
        assert [entity["id"] for entity in answer["results"]] == ["ann", "ben", "cy"]
        assert next(iter(answer)) == "page"  # recommended, so that a reader knows how much is to come
