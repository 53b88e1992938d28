# SPDX-License-Identifier: Apache-2.0
from tests.support.workloads import policy

from everyhop.agent.matching import entitled, explain, needs_of, selectors_of
from everyhop.agent.model import ProcessFacts
from everyhop.policy.model import Selector


def facts(**changes):
    base = {
        "pid": 7,
        "uid": 1000,
        "gid": 100,
        "user": "ann",
        "group": "users",
        "groups": (4, 27),
        "group_names": ("adm", "sudo"),
        "path": None,
        "sha256": None,
        "ancestors": (),
    }
    return ProcessFacts(**{**base, **changes})


def select(*texts):
    return frozenset(Selector(type=t.partition(":")[0], value=t.partition(":")[2]) for t in texts)


def names(services):
    return [service.name for service in services]


def test_no_selector_matches_nothing():
    snapshot = policy({"orders": "[{unix: {uid: 1000}}]"})
    assert entitled(snapshot, frozenset()) == ()


def test_all_selectors_of_an_alternative_must_hold():
    snapshot = policy({"orders": "[{unix: {uid: 1000, path: /usr/bin/orders}}]"})
    assert entitled(snapshot, select("unix:uid:1000")) == ()
    assert entitled(snapshot, select("unix:path:/usr/bin/orders")) == ()
    assert names(entitled(snapshot, select("unix:uid:1000", "unix:path:/usr/bin/orders"))) == ["orders"]


def test_a_launch_of_another_service_does_not_match():
    snapshot = policy({"orders": "[{run: true}]", "payments": "[{run: true}]"})
    assert names(entitled(snapshot, select("run:payments", "unix:uid:0"))) == ["payments"]


def test_any_alternative_is_enough_and_the_best_one_ranks():
    snapshot = policy(
        {
            "alpha": "[{unix: {uid: 1000}}]",
            "beta": "[{unix: {uid: 5}}, {unix: {uid: 1000, gid: 100}}]",
            "delta": "[{unix: {path: /x}}]",
            "gamma": "[{unix: {uid: 1000}}]",
        }
    )
    found = entitled(snapshot, select("unix:uid:1000", "unix:gid:100", "unix:path:/x"))
    assert names(found) == ["beta", "delta", "alpha", "gamma"]


def test_selectors_of_facts():
    found = selectors_of(facts(path="/usr/bin/x", sha256="ab" * 32), ["orders"])
    assert {str(s) for s in found} == {
        "unix:uid:1000",
        "unix:gid:100",
        "unix:gid:4",
        "unix:gid:27",
        "unix:user:ann",
        "unix:group:users",
        "unix:group:adm",
        "unix:group:sudo",
        "unix:path:/usr/bin/x",
        "unix:sha256:" + "ab" * 32,
        "run:orders",
    }


def test_unknown_facts_give_no_selector():
    found = selectors_of(facts(user=None, group=None, groups=(), group_names=()))
    assert {str(s) for s in found} == {"unix:uid:1000", "unix:gid:100"}


def test_the_executable_is_looked_at_only_when_the_policy_asks():
    assert needs_of(policy({"orders": "[{unix: {uid: 1}}, {run: true}]"})) == (False, False)
    assert needs_of(policy({"orders": "[{unix: {uid: 1, path: /x}}]"})) == (True, False)
    assert needs_of(policy({"orders": f"[{{unix: {{sha256: {'ab' * 32}}}}}]"})) == (False, True)


def test_explanation_names_the_nearest_service_and_the_difference():
    snapshot = policy(
        {
            "orders": "[{unix: {user: orders, path: /usr/bin/orders}}]",
            "payments": "[{unix: {user: ann, path: /usr/bin/payments}}]",
        }
    )
    why = explain(snapshot, selectors_of(facts()), {"path": "it was deleted"})
    assert why.nearest == "payments"
    assert [str(d.wanted) for d in why.differences] == ["unix:path:/usr/bin/payments"]
    assert "not known: it was deleted" in why.render()
    assert why.to_dict()["differences"][0]["unknown"] == "it was deleted"


def test_explanation_shows_what_is_there_instead():
    why = explain(policy({"orders": "[{unix: {user: orders}}]"}), selectors_of(facts()))
    assert "unix:user:orders (the process has unix:user:ann)" in why.render()
    assert (
        "run:orders (the process has nothing of that kind)"
        in explain(policy({"orders": "[{run: true}]"}), selectors_of(facts())).render()
    )


def test_explanation_without_any_workload():
    snapshot = policy({"orders": "[{run: true}]"})
    bare = type(snapshot)(
        trust_domain=snapshot.trust_domain, services={}, rules=(), tests=(), canonical=b"", hash="0"
    )
    assert "no service of the policy has a workload" in explain(bare, selectors_of(facts())).render()
