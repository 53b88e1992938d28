# SPDX-License-Identifier: Apache-2.0
"""Check the documents: every relative link resolves, and every ADR is listed and numbered once.

Reads the Markdown files that git tracks or would track, so build products and environments are left out.
Prints one line a finding, as ``file:line: what is wrong``, and exits 1 if there is any.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
ADR_DIR = "docs/adr"

FENCE = re.compile(r"^\s*(```|~~~)")
INLINE_CODE = re.compile(r"`[^`]*`")
INLINE_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'][^)]*)?\)")
REFERENCE_LINK = re.compile(r"^\s{0,3}\[[^\]]+\]:\s+<?(\S+?)>?(?:\s|$)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$")
ABSOLUTE = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*:")
ADR_NAME = re.compile(r"^(\d{4})-[a-z0-9-]+\.md$")


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines outside fenced code, with inline code blanked."""
    fence = ""
    for number, line in enumerate(text.splitlines(), start=1):
        mark = FENCE.match(line)
        if mark and not fence:
            fence = mark.group(1)
        elif mark and mark.group(1) == fence:
            fence = ""
        elif not fence:
            yield number, INLINE_CODE.sub("``", line)


def anchors(text: str) -> set[str]:
    """Give the anchors of a document's headings, as GitHub forms them."""
    seen: dict[str, int] = {}
    found: set[str] = set()
    fenced_out = {number for number, _ in prose(text)}
    for number, line in enumerate(text.splitlines(), start=1):
        heading = HEADING.match(line) if number in fenced_out else None
        if heading:
            kept = re.sub(r"[^\w\- ]", "", heading.group(1).strip().lower())
            slug = kept.replace(" ", "-")
            count = seen.get(slug, 0)
            seen[slug] = count + 1
            found.add(f"{slug}-{count}" if count else slug)
    return found


def broken_link(page: Path, target: str) -> str | None:
    """Say what is wrong with one link of `page`, or None. Absolute URLs are not visited."""
    if ABSOLUTE.match(target) or target.startswith("//"):
        return None
    path, _, anchor = target.partition("#")
    place = (page.parent / unquote(path)).resolve() if path else page
    if not place.is_relative_to(ROOT):
        return f"link leaves the repository: {target}"
    if not place.exists():
        return f"link leads nowhere: {target}"
    if anchor and place.suffix == ".md" and anchor not in anchors(place.read_text(encoding="utf-8")):
        return f"no such heading: {target}"
    return None


def check_links(pages: list[Path]) -> Iterator[str]:
    """Yield a finding for every relative link that does not resolve."""
    for page in pages:
        for number, line in prose(page.read_text(encoding="utf-8")):
            targets = INLINE_LINK.findall(line) + REFERENCE_LINK.findall(line)
            for problem in filter(None, (broken_link(page, target) for target in targets)):
                yield f"{page.relative_to(ROOT)}:{number}: {problem}"


def check_adrs() -> Iterator[str]:
    """Yield a finding for every decision record that is misnamed, shares its number or is not in the list."""
    index = ROOT / ADR_DIR / "README.md"
    listed = index.read_text(encoding="utf-8") if index.exists() else ""
    numbers: dict[str, str] = {}
    for record in sorted((ROOT / ADR_DIR).glob("*.md")):
        if record == index:
            continue
        name = ADR_NAME.match(record.name)
        if not name:
            yield f"{ADR_DIR}/{record.name}:1: a decision record is named NNNN-title.md"
            continue
        if (other := numbers.setdefault(name.group(1), record.name)) != record.name:
            yield f"{ADR_DIR}/{record.name}:1: shares its number with {other}"
        if f"({record.name})" not in listed:
            yield f"{ADR_DIR}/README.md:1: does not list {record.name}"


def tracked_pages() -> list[Path]:
    """List the Markdown files that git tracks or would track."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [page for name in sorted(set(listing.split("\0"))) if name and (page := ROOT / name).is_file()]


def main() -> int:
    """Print the findings; give 1 if there is any, else 0."""
    pages = tracked_pages()
    findings = [*check_links(pages), *check_adrs()]
    for finding in findings:
        print(finding)
    if not findings:
        print(f"docs: {len(pages)} pages, links and decision records in order")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
