# SPDX-License-Identifier: Apache-2.0
"""Fetched keys: a flood of unknown names costs one request, and nothing that fails costs a good key."""

import json
import threading
from datetime import timedelta

import pytest
from tests.support.identity import FakeClock
from tests.support.tokens import KEY_SET
from tests.vectors.hostile_jwks import good_ec, good_rsa, hostile_jwks

from everyhop.core.errors import TokenError
from everyhop.tokens import FetchedKeys
from everyhop.tokens.fetched import MAX_UNKNOWN


class Issuer:
    def __init__(self, *keys):
        self.keys = list(keys)
        self.calls = 0
        self.fails = None

    def __call__(self):
        self.calls += 1
        if self.fails is not None:
            raise self.fails
        return json.dumps({"keys": self.keys}).encode()


def after(clock, seconds):
    clock.advance(timedelta(seconds=seconds))


def refused(keys, kid):
    with pytest.raises(TokenError) as refusal:
        keys.key(kid)
    assert refusal.value.token_code == "UNKNOWN_KEY_ID"


def test_ten_thousand_random_names_cost_one_request_in_thirty_seconds():
    issuer, clock = Issuer(good_ec()), FakeClock()
    keys = FetchedKeys(issuer, clock)
    assert keys.key("k1").kid == "k1"
    after(clock, 31)
    for n in range(10_000):
        refused(keys, f"random-{n}")
        assert keys.key("k1").kid == "k1"
    assert issuer.calls == 2
    after(clock, 29)
    refused(keys, "one more")
    assert issuer.calls == 2
    after(clock, 1)
    refused(keys, "another")
    assert (issuer.calls, keys.attempts) == (3, 3)
    assert len(keys._unknown) <= MAX_UNKNOWN


def test_a_name_that_is_known_to_be_unknown_does_not_ask_again():
    issuer, clock = Issuer(good_ec()), FakeClock()
    keys = FetchedKeys(issuer, clock, initial=KEY_SET)
    refused(keys, "never")
    for _ in range(3):
        after(clock, 31)
        refused(keys, "never")
    assert issuer.calls == 1
    after(clock, 31)
    refused(keys, "never")
    assert issuer.calls == 2


def test_the_negative_cache_is_bounded():
    clock = FakeClock()
    keys = FetchedKeys(Issuer(good_ec()), clock)
    for n in range(MAX_UNKNOWN + 50):
        refused(keys, f"n{n}")
    assert len(keys._unknown) == MAX_UNKNOWN


def test_a_new_key_is_found_at_once_and_an_old_one_goes_with_the_document():
    issuer, clock = Issuer(good_ec("old")), FakeClock()
    keys = FetchedKeys(issuer, clock)
    keys.key("old")
    issuer.keys = [good_ec("new")]
    after(clock, 30)
    assert keys.key("new").kid == "new"
    assert issuer.calls == 2
    refused(keys, "old")


def test_a_key_that_left_is_gone_after_the_age_of_the_document():
    issuer, clock = Issuer(good_ec("old"), good_rsa()), FakeClock()
    keys = FetchedKeys(issuer, clock)
    keys.key("old")
    issuer.keys = [good_rsa()]
    after(clock, 299)
    assert keys.key("old")
    after(clock, 1)
    refused(keys, "old")
    assert keys.current("r1")
    assert issuer.calls == 2


@pytest.mark.parametrize("error", [OSError("no route"), TimeoutError(), ValueError(), RecursionError()])
def test_the_last_good_keys_stay(error):
    issuer, clock = Issuer(good_ec()), FakeClock()
    keys = FetchedKeys(issuer, clock)
    version = keys.key("k1") and keys.keys.version
    issuer.fails = error
    for _ in range(5):
        after(clock, 400)
        assert keys.key("k1")
        refused(keys, "new")
    assert keys.keys.version == version
    assert keys.last_error is error
    assert issuer.calls == 6  # once per cool-down, whoever asks
    issuer.fails = None
    after(clock, 31)
    assert keys.key("k1")
    assert keys.last_error is None


@pytest.mark.parametrize("case", hostile_jwks()[:30], ids=lambda case: case.name)
def test_a_hostile_document_replaces_nothing(case):
    clock = FakeClock()
    keys = FetchedKeys(lambda: case.document, clock, initial=KEY_SET)
    refused(keys, "new")
    assert keys.current("k1")


def test_an_equal_document_keeps_the_very_keys():
    issuer, clock = Issuer(good_ec()), FakeClock()
    keys = FetchedKeys(issuer, clock)
    first = keys.key("k1")
    after(clock, 301)
    assert keys.key("k1") is first
    assert issuer.calls == 2


def test_before_the_first_document_it_is_asked_again_sooner_and_later_less():
    issuer, clock = Issuer(good_ec()), FakeClock()
    issuer.fails = OSError()
    keys = FetchedKeys(issuer, clock)
    assert keys.keys.kids == frozenset()
    for _ in range(100):
        refused(keys, "k1")
        after(clock, 1)
    assert issuer.calls < 10
    issuer.fails = None
    after(clock, 30)
    assert keys.key("k1")


def test_a_clock_that_was_set_back_does_not_stop_the_asking():
    issuer, clock = Issuer(good_ec()), FakeClock()
    keys = FetchedKeys(issuer, clock)
    keys.key("k1")
    clock.advance(timedelta(days=-1))
    issuer.keys = [good_ec("new")]
    assert keys.key("new")


def test_many_threads_share_one_request_and_good_keys_do_not_wait():
    issuer, clock = Issuer(good_ec()), FakeClock()
    entered, release = threading.Event(), threading.Event()
    keys = FetchedKeys(issuer, clock)
    keys.key("k1")
    after(clock, 400)
    issuer.keys = [good_ec(), good_ec("new")]

    def slow():
        entered.set()
        assert release.wait(10)
        return issuer()

    keys._fetch = slow
    found = []
    threads = [threading.Thread(target=lambda: found.append(keys.key("new").kid)) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    assert keys.key("k1").kid == "k1"  # although the document is old and a request is under way
    release.set()
    for thread in threads:
        thread.join(10)
    assert found == ["new"] * 8
    assert issuer.calls == 2


def test_whoever_comes_while_another_is_about_to_ask_goes_on_with_what_is_held():
    issuer, clock = Issuer(good_ec()), FakeClock()
    keys = FetchedKeys(issuer, clock)
    keys.key("k1")
    after(clock, 400)
    with keys._lock:
        assert keys.key("k1")
    assert issuer.calls == 1
