# SPDX-License-Identifier: Apache-2.0
"""Verifying a whole log: every record against its leaf, every leaf against the tree, the tree against what was signed.

Nothing of the log is believed but what follows from a checkpoint that a trusted key signed.  The reader gives what is
stored; it may lie about all of it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from everyhop.auditlog._differences import Differences
from everyhop.auditlog._heads import Heads
from everyhop.auditlog.verdict import Fault, Finding, Verdict
from everyhop.core.errors import InputError, NotFound, Unavailable
from everyhop.tlog import Frontier, Tile, Verifier, leaf_hash, read_tile, root_of
from everyhop.tlog.tiles import HEIGHT, WIDTH, width_of

PAGE: Final = 4 * WIDTH

Progress = Callable[[int, int], None]
"""Is told how many leaves of how many are done."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored record: its line, and where the reader finds records by more than that, what contradicts the line."""

    line: bytes
    wrong: str | None = None


class LogSource(Protocol):
    """A log as it is stored somewhere.

    Reading raises NotFound for what is not there, Unavailable when the store does not answer, and InputError for what
    has not the form it should have.
    """

    @property
    def size(self) -> int:
        """Return how many leaves it says it has."""

    @property
    def first_kept(self) -> int:
        """Return the first index whose record is there; those before it were removed by age, their hashes stay."""

    @property
    def root(self) -> bytes | None:
        """Return the root that it says it has, None where it says none apart from its checkpoint."""

    def tile(self, tile: Tile) -> bytes:
        """Return hashes."""

    def entries(self, start: int, count: int) -> Sequence[Entry | None]:
        """Return records from index ``start``, None for each that is not there."""

    def unsealed(self) -> int:
        """Return how many records stand behind the last leaf."""

    def notes(self) -> Iterable[bytes]:
        """Return the checkpoints that it keeps."""


def verify_log(
    source: LogSource,
    *,
    trusted: Sequence[Verifier],
    witnesses: Sequence[Verifier] = (),
    against: Iterable[tuple[str, bytes]] = (),
    progress: Progress | None = None,
) -> Verdict:
    """Verify a log.

    ``trusted`` are the keys of this log and of nobody else, from where the one who verifies trusts them.  ``against``
    are checkpoints from outside the source, with a name for messages: only they prove that the end is not missing.
    """
    heads = Heads(trusted, witnesses)
    for note in source.notes():
        heads.take("kept with the log", note, outside=False)
    for name, note in against:
        heads.take(name, note, outside=True)
    scan = _Scan(source, heads, progress)
    try:
        scan.run()
    except (NotFound, Unavailable) as error:
        scan.unverified.append(error.message)
        scan.is_whole = False
    roots, findings = scan.roots, [*scan.findings, *heads.findings]
    if scan.is_whole and heads.prefer(scan.line_roots, scan.roots):
        roots = scan.roots | scan.line_roots
        findings = [*map(_blame_tree, scan.findings), *heads.findings]
    if scan.is_whole:
        findings += heads.compare(roots, scan.size)
    signed = heads.signed(roots)
    unverified = [*heads.unverified, *scan.unverified]
    if scan.size and not signed and not findings and not unverified:
        unverified.append("no checkpoint that a trusted key signed covers any of it")
    return Verdict(
        origin=heads.origin,
        size=scan.size,
        root=scan.frontier.root() if scan.is_whole else None,
        signed=signed,
        first_kept=scan.first_kept,
        findings=tuple(_sorted(findings)),
        unverified=tuple(unverified),
        checkpoints=heads.count,
        witnesses=heads.witnesses(roots),
    )


def _blame_tree(finding: Finding) -> Finding:
    """Say of a record that does not fit its leaf that the leaf is wrong: what was signed follows from the record."""
    if finding.fault is not Fault.ALTERED:
        return finding
    place = (finding.index or 0) + 1
    return replace(
        finding,
        fault=Fault.TREE,
        message=f"the hash of record {place} in the tree was altered; the record is what was signed for",
    )


def _sorted(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda f: (f.index is None, f.index or 0))


class _Scan:
    """One pass over all leaves: the sealed hashes make the tree, the records are compared with them."""

    def __init__(self, source: LogSource, heads: Heads, progress: Progress | None) -> None:
        self.size = source.size
        self.first_kept = source.first_kept
        self.frontier = Frontier()
        self.roots: dict[int, bytes] = {0: self.frontier.root()}
        self.findings: list[Finding] = []
        self.unverified: list[str] = []
        self.is_whole = True
        self._source = source
        self._stops = sorted(size for size in heads.sizes if 0 < size <= self.size)
        self._progress = progress
        self._differences = Differences()
        self._tile_roots: list[bytes] = []
        self._stop_set = set(self._stops)
        # The tree that the records make, from the first one on that is not what was sealed.
        self._lines: Frontier | None = None
        self._before = self.frontier.to_bytes()
        self.line_roots: dict[int, bytes] = {}

    def run(self) -> None:
        """Look at everything.  Raises NotFound or Unavailable in the middle when something cannot be read."""
        try:
            for start in range(0, self.size, PAGE):
                count = min(PAGE, self.size - start)
                self._page(start, count)
                if self._progress is not None:
                    self._progress(start + count, self.size)
            self._upper()
        finally:
            self.findings += self._differences.findings()
        claimed = self._source.root
        if claimed is not None and claimed != self.frontier.root():
            self._tree("the head of the log is not the head of its tree", None)
        if behind := self._source.unsealed():
            self.findings.append(
                Finding(
                    fault=Fault.INSERTED,
                    index=self.size,
                    last=self.size + behind - 1,
                    count=behind,
                    message=f"{behind} record(s) stand behind the last one that was sealed",
                )
            )

    def _page(self, start: int, count: int) -> None:
        sealed = self._sealed(start, count)
        self._grow(self.frontier, self.roots, start, sealed)
        skipped = min(max(0, self.first_kept - start), count)
        found = sealed
        if skipped < count:
            entries = self._source.entries(start + skipped, count - skipped)
            found = sealed[:skipped] + [b"" if e is None else leaf_hash(e.line) for e in entries]
            for entry in entries:
                if entry is None or entry.wrong is not None:
                    self._differ(start + skipped, entries, sealed[skipped:])
                    break
            else:
                if found != sealed:
                    self._differ(start + skipped, entries, sealed[skipped:])
        if self._lines is None and found != sealed:
            self._lines = Frontier.from_bytes(self._before)
        if self._lines is not None:
            whole = [line or leaf for line, leaf in zip(found, sealed, strict=True)]
            self._grow(self._lines, self.line_roots, start, whole)
        else:
            self._before = self.frontier.to_bytes()

    def _differ(self, start: int, entries: Sequence[Entry | None], sealed: Sequence[bytes]) -> None:
        for index, (entry, leaf) in enumerate(zip(entries, sealed, strict=True), start):
            if entry is None or leaf_hash(entry.line) != leaf:
                self._differences.add(index, None if entry is None else entry.line, leaf)
            elif entry.wrong is not None:
                self._differences.columns(index, entry.wrong)

    def _sealed(self, start: int, count: int) -> list[bytes]:
        """Return leaf hashes as the tree has them; zeroes for a tile that has not the form of one."""
        hashes: list[bytes] = []
        for n in range(start // WIDTH, -(-(start + count) // WIDTH)):
            tile = Tile(0, n, width_of(self.size, 0, n))
            try:
                hashes += read_tile(tile, self._source.tile(tile))
            except InputError as error:
                self._tree(error.message, n * WIDTH)
                hashes += [bytes(32)] * tile.width
            if tile.is_full:
                self._tile_roots.append(root_of(hashes[-WIDTH:]))
        return hashes

    def _grow(self, frontier: Frontier, roots: dict[int, bytes], start: int, leaves: Sequence[bytes]) -> None:
        """Extend a tree, and remember its root at each size that somebody signed for, and at its end."""
        done, end = start, start + len(leaves)
        for stop in (*self._stops[bisect_right(self._stops, start) : bisect_right(self._stops, end)], end):
            frontier.extend(leaves[done - start : stop - start])
            done = stop
            if stop == self.size or stop in self._stop_set:
                roots[stop] = frontier.root()

    def _upper(self) -> None:
        """Compare the tiles above the leaves with what they have to be."""
        level, below = 1, self._tile_roots
        while below:
            for n in range(-(-len(below) // WIDTH)):
                expected = below[n * WIDTH : (n + 1) * WIDTH]
                tile = Tile(level, n, len(expected))
                try:
                    is_right = read_tile(tile, self._source.tile(tile)) == expected
                except InputError:
                    is_right = False
                if not is_right:
                    self._tree(f"{tile.path} is not made of the tiles below it", n << (HEIGHT * (level + 1)))
            full = len(below) // WIDTH
            below = [root_of(below[n * WIDTH : (n + 1) * WIDTH]) for n in range(full)]
            level += 1

    def _tree(self, message: str, index: int | None) -> None:
        self.findings.append(Finding(fault=Fault.TREE, index=index, message=message))
