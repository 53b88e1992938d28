# SPDX-License-Identifier: Apache-2.0
"""Objects of Kubernetes from YAML: hostile and wrong texts first."""

import pytest

from everyhop.core.errors import InputError
from everyhop.manifests import read_manifests

ONE = b"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, namespace: shop}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xff", "UTF-8"),
        (b"a: [", "f.yaml:"),
        (b"kind: A\n", "apiVersion and kind"),
        (b"- a\n", "expected an object"),
        (b"apiVersion: v1\nkind: Pod\n", "metadata.name"),
        (b"apiVersion: v1\nkind: Pod\nmetadata: {name: 1}\n", "metadata.name"),
        (b"apiVersion: v1\nkind: Pod\nkind: Secret\nmetadata: {name: a}\n", "stands twice"),
        (b"apiVersion: v1\nkind: Pod\nmetadata: &a {name: a}\nspec: *a\n", "anchors and aliases"),
        (b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {<<: {a: 1}}\n", "merge keys"),
        (b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: !!python/object:os.system {}\n", "f.yaml:4"),
        (b"a: " + b"[" * 100 + b"]" * 100, "levels deep"),
        (b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {? [a] : b}\n", "a key is no text"),
        (b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {at: 2026-99-99}\n", "f.yaml"),
    ],
)
def test_what_is_no_object_is_refused_with_its_place(text, said):
    with pytest.raises(InputError, match=said):
        read_manifests({"f.yaml": text})


def test_objects_come_in_order_with_their_places():
    found = read_manifests(
        {"b.yaml": ONE, "a.yaml": b"---\n" + ONE + b"---\n---\n" + ONE.replace(b"a,", b"b,")}
    )
    assert [(str(one), str(one.span)) for one in found] == [
        ("ServiceAccount shop/a", "a.yaml:2:1"),
        ("ServiceAccount shop/b", "a.yaml:7:1"),
        ("ServiceAccount shop/a", "b.yaml:1:1"),
    ]


def test_lists_are_taken_apart_and_json_is_yaml():
    text = b'{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "n"}, "spec": {"podSelector": {}}}]}'
    (one,) = read_manifests({"l.json": text})
    assert (one.group, one.kind, one.namespace, one.spec) == (
        "networking.k8s.io",
        "NetworkPolicy",
        "default",
        {"podSelector": {}},
    )


def test_scalars_are_those_of_kubernetes():
    (one,) = read_manifests({"a": ONE + b"data: {on: 'yes', a: yes, b: 0o17, c: '1'}\n"})
    assert one.document["data"] == {"true": "yes", "a": True, "b": "0o17", "c": "1"}
