# SPDX-License-Identifier: Apache-2.0
"""``everyhop policy admission`` over files."""

import json

from tests.support.admission_cases import CASES, DEFAULT_DENIES, POD, as_yaml, deployment

from everyhop.cli.__main__ import main


def test_what_should_not_be_admitted_is_told_with_its_place(tmp_path, capsys):
    place = tmp_path / "a.yaml"
    place.write_bytes(as_yaml(DEFAULT_DENIES["istio"], CASES["permissive"][0]))
    assert main(["policy", "admission", str(place)]) == 1
    assert f"{place}:" in (text := capsys.readouterr().out)
    assert "permissive-mtls: spec.mtls.mode" in text
    assert main(["policy", "admission", str(place), "-o", "json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["code"], finding["object"]) == ("permissive-mtls", "PeerAuthentication shop/p")


def test_nothing_found_and_nothing_read(tmp_path, capsys):
    (tmp_path / "a.yaml").write_bytes(as_yaml(DEFAULT_DENIES["network"], deployment(POD)))
    assert main(["policy", "admission", str(tmp_path)]) == 0
    (tmp_path / "b.yaml").write_text("a: [")
    assert main(["policy", "admission", str(tmp_path)]) == 2
    assert "b.yaml" in capsys.readouterr().err
