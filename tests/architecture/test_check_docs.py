# SPDX-License-Identifier: Apache-2.0
"""The document check finds what it is there to find."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "check_docs.py"


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The checker, looking at an empty tree."""
    spec = importlib.util.spec_from_file_location("check_docs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "docs/adr").mkdir(parents=True)
    (tmp_path / "docs/other.md").write_text("# Other page\n\n## A part, named\n\n## A part, named\n")
    return module


def findings(docs: ModuleType, text: str) -> list[str]:
    page = docs.ROOT / "docs/page.md"
    page.write_text(f"# Page\n\n{text}\n")
    return list(docs.check_links([page]))


@pytest.mark.parametrize(
    "text",
    [
        "[a](other.md)",
        "[a](other.md#a-part-named)",
        "[a](other.md#a-part-named-1)",
        "[a](#page)",
        "[a](../docs/)",
        '[a](other.md "title")',
        "[a](https://example.org/absent.md)",
        "[a]: other.md",
        "`[a](absent.md)`",
        "```\n[a](absent.md)\n```",
    ],
)
def test_accepts(docs: ModuleType, text: str) -> None:
    assert findings(docs, text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a](absent.md)", "link leads nowhere: absent.md"),
        ("![a](absent.png)", "link leads nowhere: absent.png"),
        ("[a]: absent.md", "link leads nowhere: absent.md"),
        ("[a](other.md#no-part)", "no such heading: other.md#no-part"),
        ("[a](#no-part)", "no such heading: #no-part"),
        ("[a](../../../etc)", "link leaves the repository: ../../../etc"),
        ("```\ncode\n```\n[a](absent.md)", "link leads nowhere: absent.md"),
    ],
)
def test_refuses(docs: ModuleType, text: str, problem: str) -> None:
    found = findings(docs, text)
    assert len(found) == 1
    assert found[0].endswith(problem)


def test_every_decision_is_listed_and_numbered_once(docs: ModuleType) -> None:
    adr = docs.ROOT / "docs/adr"
    for name in ("0001-one.md", "0002-two.md", "0002-again.md", "notes.md"):
        (adr / name).write_text("# x\n")
    (adr / "README.md").write_text("[1](0001-one.md) [2](0002-two.md) [2](0002-again.md)\n")
    assert [finding.partition(": ")[2] for finding in docs.check_adrs()] == [
        "shares its number with 0002-again.md",
        "a decision record is named NNNN-title.md",
    ]
    (adr / "README.md").write_text("")
    assert "docs/adr/README.md:1: does not list 0001-one.md" in list(docs.check_adrs())
