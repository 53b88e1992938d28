# SPDX-License-Identifier: Apache-2.0
"""``log show`` pages, ``log tail`` goes on where it stopped, ``log forget`` asks once."""

import json

import pytest

from everyhop.cli.__main__ import build_parser
from everyhop.cli.verbs import log as verb
from everyhop.core.errors import InputError, Unavailable


def record(n):
    return {
        "id": f"d-{n}",
        "time": f"2026-07-01T12:00:{n:02}.000000Z",
        "kind": "decision",
        "decision": "deny",
    }


class Link:
    """A log of 30 decisions; its stream breaks off after every line, and the server stays away once."""

    def __init__(self):
        self.asked = []
        self.records = {n: record(n) for n in range(1, 31)}
        self.away = 1

    def get(self, path, *, limit, before=None, after=None, **query):
        self.asked.append((path, before, after, query))
        if after is not None:
            places = [n for n in sorted(self.records) if n > after][:limit]
            more = bool(places) and places[-1] < max(self.records)
        else:
            places = [n for n in sorted(self.records) if before is None or n < before]
            more = len(places) > limit
            places = places[-limit:] if limit else []
        return {
            "records": [self.records[n] for n in places],
            "positions": places,
            "cursor": places[-1] if places else after or max(self.records),
            "before": places[0] if places else None,
            "more": more,
        }

    def stream(self, path, *, after, **query):
        self.asked.append((path, None, after, query))
        if after >= 33:
            raise KeyboardInterrupt  # the reader has seen enough
        if after == 31 and self.away:
            self.away -= 1
            raise Unavailable("admin.sock does not answer")
        self.records[after + 1] = record(after + 1)
        yield {"position": after}  # a heartbeat
        yield {"position": after + 1, "record": self.records[after + 1]}
        raise Unavailable("admin.sock ended its stream")

    def post(self, path, message):
        self.asked.append((path, message))
        return {"forgotten": "~user.x"}


@pytest.fixture
def link(monkeypatch):
    made = Link()
    monkeypatch.setattr(verb, "admin", lambda args, timeout=0: made)
    monkeypatch.setattr(verb, "_RETRY_SECONDS", 0)
    monkeypatch.setattr(verb, "_PAGE", 7)
    return made


def run(*arguments):
    args = build_parser().parse_args(["log", *arguments])
    return args.run(args)


def ids(text):
    return [json.loads(line)["id"] for line in text.splitlines()]


def test_more_than_a_page_is_shown_oldest_first(link, capsys):
    assert run("show", "-n", "16", "-o", "json") == 0
    out, err = capsys.readouterr()
    assert ids(out) == [f"d-{n}" for n in range(15, 31)]
    assert "older ones: --before 15" in err
    assert [before for _, before, _, _ in link.asked] == [None, 24, 17]


def test_going_on_behind_and_before_a_position(link, capsys):
    run("show", "--after", "5", "--limit", "9", "-o", "json")
    out, err = capsys.readouterr()
    assert ids(out) == [f"d-{n}" for n in range(6, 15)]
    assert "further ones: --after 14" in err
    run("show", "--before", "4", "-o", "json")
    out, err = capsys.readouterr()
    assert ids(out) == ["d-1", "d-2", "d-3"]
    assert not err
    with pytest.raises(InputError):
        run("show", "--before", "4", "--after", "5")


def test_filters_reach_the_server(link):
    run(
        "show",
        "--user",
        "alice",
        "--denied",
        "--api-key",
        "abc",
        "--kind",
        "key",
        "--kind",
        "log",
        "--pseudonyms",
    )
    query = link.asked[0][3]
    assert query["user"] == "alice"
    assert query["decision"] == "deny"
    assert query["api_key"] == "abc"
    assert query["kind"] == ["key", "log"]
    assert query["pseudonyms"] == 1
    run("show", "--since", "15m", "--until", "2026-07-01T12:00:00Z")
    assert link.asked[-1][3]["until"] == "2026-07-01T12:00:00.000000Z"
    assert link.asked[-1][3]["kind"] == "decision"
    with pytest.raises(InputError):
        run("show", "--since", "yesterday")


def test_a_tail_that_is_cut_off_goes_on_and_leaves_nothing_out(link, capsys):
    with pytest.raises(KeyboardInterrupt):
        run("tail", "-n", "2", "-o", "json")
    out, err = capsys.readouterr()
    assert ids(out) == ["d-29", "d-30", "d-31", "d-32", "d-33"]
    assert "waiting for it" in err
    assert "the server is back; nothing was left out" in err
    assert [after for path, _, after, _ in link.asked if path.endswith("stream")] == [30, 31, 31, 32, 33]


def test_a_tail_from_a_position_shows_nothing_before_it(link, capsys):
    with pytest.raises(KeyboardInterrupt):
        run("tail", "--after", "32", "-o", "json")
    assert ids(capsys.readouterr().out) == ["d-33"]


def test_forgetting_needs_a_reason(link, capsys):
    with pytest.raises(SystemExit):
        run("forget", "user:alice")
    assert run("forget", "user:alice", "--reason", "request 17") == 0
    assert link.asked == [("/v1/log/forget", {"person": "user:alice", "reason": "request 17"})]
    assert "~user.x is nobody's" in capsys.readouterr().out
