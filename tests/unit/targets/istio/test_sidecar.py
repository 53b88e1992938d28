# SPDX-License-Identifier: Apache-2.0
"""The whole output: its shape, its schemas, and two that were read by eye."""

import pytest
from tests.support.compiled import compiled
from tests.support.crds import Definitions
from tests.support.golden import assert_golden
from tests.support.mesh_policies import POLICIES, SHOP


@pytest.mark.parametrize("name", POLICIES)
def test_the_output_is_the_one_that_was_read(name):
    assert_golden(f"istio/{name}", compiled("istio", POLICIES[name]).files)


def test_the_same_policy_gives_the_same_bytes():
    assert compiled("istio", SHOP).files == compiled("istio", SHOP).files


@pytest.mark.parametrize("name", POLICIES)
def test_every_object_is_one_that_the_api_server_takes(name, shared_material):
    definitions = Definitions(shared_material / "schemas", "istio")
    objects = compiled("istio", POLICIES[name]).objects
    assert objects
    for one in objects:
        assert definitions.problem(one) is None, one["metadata"]["name"]


def test_names_are_unique_by_kind_and_namespace():
    objects = compiled("istio", SHOP).objects
    names = [(one["kind"], one["metadata"]["namespace"], one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)


def test_a_canary_gets_nothing():
    assert not any("honeypot" in content.decode() for content in compiled("istio", SHOP).files.values())


def test_a_policy_that_is_only_watched_is_not_held():
    made = compiled("istio", f"mode: shadow\n{POLICIES['payment']}")
    assert "istio.shadow" in made.errors
