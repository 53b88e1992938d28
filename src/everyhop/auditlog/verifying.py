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
from everyhop.auditlog.codec import decode_record
from everyhop.auditlog.model import Kind
from everyhop.auditlog.verdict import Fault, Finding, Verdict
from everyhop.core.collector import collector_paused
from everyhop.core.errors import InputError, NotFound, Unavailable
from everyhop.tlog import HASH_BYTES, Frontier, Tile, Verifier, leaf_hash, read_tile, root_of
from everyhop.tlog.tiles import HEIGHT, WIDTH, width_of

PAGE: Final = 4 * WIDTH
_PRUNE: Final = b'"operation":"prune"'

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
        root=roots.get(scan.size) if scan.is_whole else None,
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


def _removed_to(line: bytes) -> int:
    try:
        record = decode_record(line)
    except InputError:
        return 0
    to = record.detail.get("to")
    is_prune = record.kind is Kind.LOG and record.operation == "prune"
    return to if is_prune and type(to) is int else 0


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
        self.removed = 0
        self._unreadable: list[tuple[int, str]] = []
        # The first leaf of which nothing is left: from there on, no root can be computed.
        self.hole: int | None = None
        # The tree that the records make, from the first one on that is not what was sealed.
        self._lines: Frontier | None = None
        self._before = self.frontier.to_bytes()
        self.line_roots: dict[int, bytes] = {}

    def run(self) -> None:
        """Look at everything.  Raises NotFound or Unavailable in the middle when something cannot be read."""
        try:
            for start in range(0, self.size, PAGE):
                count = min(PAGE, self.size - start)
                with collector_paused():  # thousands of small values, and no cycles among them
                    self._page(start, count)
                if self._progress is not None:
                    self._progress(start + count, self.size)
            self._upper()
        finally:
            self.findings += self._differences.findings(self.size)
            gone = self._differences.missing_tiles()
            for index, message in self._unreadable:
                if index not in gone:
                    self._tree(message, index)
        if self.removed < self.first_kept:
            self.findings.append(
                Finding(
                    fault=Fault.MISSING,
                    index=0,
                    last=self.first_kept - 1,
                    count=self.first_kept,
                    message=f"records 1 to {self.first_kept} are gone, and the log says of no more than"
                    f" {self.removed} that they were removed by age",
                )
            )
        claimed = self._source.root
        if claimed is not None and self.hole is None and claimed != self.frontier.root():
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
        kept = min(max(self.first_kept, start), start + count)
        entries = self._source.entries(kept, start + count - kept) if kept < start + count else ()
        lines = [None if entry is None else leaf_hash(entry.line) for entry in entries]
        known = self._sealed(start, count)
        # Of a tile that cannot be read, the records themselves say what the leaves are.
        before = kept - start
        sealed = [
            leaf if leaf is not None or i < before else lines[i - before] for i, leaf in enumerate(known)
        ]
        leaves = [leaf or bytes(HASH_BYTES) for leaf in sealed]
        if self.hole is None and None in sealed:
            self.hole = start + sealed.index(None)
        self._grow(self.frontier, self.roots, start, leaves)
        self._tile_roots += [root_of(leaves[i : i + WIDTH]) for i in range(0, count - WIDTH + 1, WIDTH)]
        if lines != leaves[before:] or any(
            entry is not None and entry.wrong is not None for entry in entries
        ):
            self._differ(kept, entries, leaves[before:])
        self._removed(entries)
        self._follow(start, leaves[:before] + [line or b"" for line in lines], leaves)

    def _removed(self, entries: Sequence[Entry | None]) -> None:
        """Note how far the log itself says that records were removed by age."""
        for entry in entries:
            if entry is not None and _PRUNE in entry.line:
                self.removed = max(self.removed, _removed_to(entry.line))

    def _follow(self, start: int, lines: Sequence[bytes], leaves: Sequence[bytes]) -> None:
        """Keep the tree that the records make, from the first one on that is not what was sealed."""
        if self._lines is None and lines != leaves:
            self._lines = Frontier.from_bytes(self._before)
        if self._lines is None:
            self._before = self.frontier.to_bytes()
        else:
            whole = [line or leaf for line, leaf in zip(lines, leaves, strict=True)]
            self._grow(self._lines, self.line_roots, start, whole)

    def _differ(self, start: int, entries: Sequence[Entry | None], sealed: Sequence[bytes]) -> None:
        for index, (entry, leaf) in enumerate(zip(entries, sealed, strict=True), start):
            if entry is None or leaf_hash(entry.line) != leaf:
                self._differences.add(index, None if entry is None else entry.line, leaf)
            elif entry.wrong is not None:
                self._differences.columns(index, entry.wrong)

    def _sealed(self, start: int, count: int) -> list[bytes | None]:
        """Return leaf hashes as the tree has them; None for those of a tile that has not the form of one."""
        hashes: list[bytes | None] = []
        for n in range(start // WIDTH, -(-(start + count) // WIDTH)):
            tile = Tile(0, n, width_of(self.size, 0, n))
            try:
                hashes += read_tile(tile, self._source.tile(tile))
            except InputError as error:
                self._unreadable.append((n * WIDTH, error.message))
                hashes += [None] * tile.width
        return hashes

    def _grow(self, frontier: Frontier, roots: dict[int, bytes], start: int, leaves: Sequence[bytes]) -> None:
        """Extend a tree, and remember its root at each size that somebody signed for, and at its end."""
        done, end = start, start + len(leaves)
        for stop in (*self._stops[bisect_right(self._stops, start) : bisect_right(self._stops, end)], end):
            frontier.extend(leaves[done - start : stop - start])
            done = stop
            if self.hole is None and (stop == self.size or stop in self._stop_set):
                roots[stop] = frontier.root()

    def _upper(self) -> None:
        """Compare the tiles above the leaves with what they have to be, unless those are not known."""
        if self.hole is not None:
            return
        level, below = 1, self._tile_roots
        while below:
            for n in range(-(-len(below) // WIDTH)):
                expected = below[n * WIDTH : (n + 1) * WIDTH]
                tile = Tile(level, n, len(expected))
                try:
                    found = read_tile(tile, self._source.tile(tile))
                except InputError as error:
                    self._tree(error.message, n << (HEIGHT * (level + 1)))
                    continue
                bad = next((i for i in range(len(expected)) if found[i] != expected[i]), None)
                if bad is not None:
                    at = (n * WIDTH + bad) << (HEIGHT * level)
                    self._tree(f"{tile.path} is not made of the tiles below it", at)
            full = len(below) // WIDTH
            below = [root_of(below[n * WIDTH : (n + 1) * WIDTH]) for n in range(full)]
            level += 1

    def _tree(self, message: str, index: int | None) -> None:
        self.findings.append(Finding(fault=Fault.TREE, index=index, message=message))
