# SPDX-License-Identifier: Apache-2.0
"""Signed checkpoints, sorted by who vouches for them, and what they say about a tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from everyhop.auditlog.verdict import Fault, Finding
from everyhop.core.errors import InputError, ProofError
from everyhop.tlog import Checkpoint, Note, Verifier, parse_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    name: str
    checkpoint: Checkpoint
    note: Note
    outside: bool

    @property
    def text(self) -> str:
        return self.note.encode()


class Heads:
    """The checkpoints of one log, from the log itself and from outside."""

    def __init__(self, trusted: Sequence[Verifier], witnesses: Sequence[Verifier]) -> None:
        self._trusted = tuple(trusted)
        self._witnesses = tuple(witnesses)
        self._heads: list[_Head] = []
        self.findings: list[Finding] = []
        self.unverified: list[str] = []
        if not trusted:
            self.unverified.append("no key of the log is known, so nobody vouches for anything: give --vkey")

    @property
    def origin(self) -> str | None:
        """Return the origin of the log that is verified: the name of the keys that are trusted."""
        return self._trusted[0].name if self._trusted else None

    @property
    def count(self) -> int:
        """Return how many checkpoints a trusted key signed."""
        return len(self._heads)

    @property
    def sizes(self) -> set[int]:
        """Return the sizes that were signed for."""
        return {head.checkpoint.size for head in self._heads}

    def take(self, name: str, data: bytes, *, outside: bool) -> None:
        """Take one checkpoint, if a trusted key signed it; say what is wrong with it otherwise.

        What the log itself keeps of an origin that it had before is passed over.
        """
        try:
            checkpoint, note = parse_checkpoint(data)
        except InputError as error:
            self._refuse(f"the checkpoint {name} cannot be read: {error.message}", outside=outside)
            return
        if checkpoint.origin != self.origin:
            if outside and self._trusted:
                self.unverified.append(
                    f"the checkpoint {name} is of {checkpoint.origin}, and the trusted key of {self.origin}"
                )
            return
        try:
            note.signed_by(self._trusted)
        except ProofError:
            known = {(v.name, v.key_id) for v in self._trusted}
            if any((s.name, s.key_id) in known for s in note.signatures):
                self.findings.append(
                    Finding(
                        fault=Fault.FORGED,
                        message=f"the checkpoint {name} ({checkpoint.size} records) names the log's key, which did not"
                        " sign it",
                        evidence=(note.encode(),),
                    )
                )
            elif outside:
                self.unverified.append(f"no trusted key signed the checkpoint {name}")
            return
        self._heads.append(_Head(name=name, checkpoint=checkpoint, note=note, outside=outside))

    def _refuse(self, message: str, *, outside: bool) -> None:
        if outside:
            self.unverified.append(message)
        else:
            self.findings.append(Finding(fault=Fault.FORGED, message=message))

    def signed(self, roots: Mapping[int, bytes]) -> int:
        """Return the largest size that was signed for and that the tree contains; 0 for none."""
        return max((h.checkpoint.size for h in self._heads if _agrees(h, roots)), default=0)

    def prefer(self, lines: Mapping[int, bytes], sealed: Mapping[int, bytes]) -> bool:
        """Tell whether what was signed follows from the records and not from the hashes that are stored of them."""
        sizes = [h for h in self._heads if h.checkpoint.size in lines]
        return bool(sizes) and all(_agrees(h, lines) and not _agrees(h, sealed) for h in sizes)

    def witnesses(self, roots: Mapping[int, bytes]) -> tuple[str, ...]:
        """Return the names of the witnesses that cosigned the largest checkpoint that the tree contains."""
        size = self.signed(roots)
        names = set()
        for head in self._heads:
            if head.checkpoint.size == size and _agrees(head, roots):
                with suppress(ProofError):
                    names |= {verifier.name for verifier, _ in head.note.signed_by(self._witnesses)}
        return tuple(sorted(names))

    def compare(self, roots: Mapping[int, bytes], size: int) -> Iterable[Finding]:
        """Return what the checkpoints say about a tree of ``size`` leaves, with its roots at their sizes."""
        heads = sorted(self._heads, key=lambda head: head.checkpoint.size)
        yield from _equal_sizes(heads)
        good = [head for head in heads if _agrees(head, roots)]
        bad = [h for h in heads if h.checkpoint.size in roots and not _agrees(h, roots)]
        if bad:
            yield _disagreement(bad[0], good)
        if ahead := [h for h in heads if h.checkpoint.size > size]:
            yield _behind(ahead, size)


def _agrees(head: _Head, roots: Mapping[int, bytes]) -> bool:
    return roots.get(head.checkpoint.size) == head.checkpoint.root


def _equal_sizes(heads: Sequence[_Head]) -> Iterable[Finding]:
    """Find two roots that were signed for one size: no honest log has them, whatever its tree is."""
    first: dict[int, _Head] = {}
    for head in heads:
        other = first.setdefault(head.checkpoint.size, head)
        if other.checkpoint.root != head.checkpoint.root:
            yield Finding(
                fault=Fault.FORK,
                index=None,
                message=f"two roots were signed for {head.checkpoint.size} records: {other.name}, and {head.name}",
                evidence=(other.text, head.text),
            )
            return


def _disagreement(bad: _Head, good: Sequence[_Head]) -> Finding:
    """Judge a checkpoint that the tree does not contain, given those that it does contain."""
    size = bad.checkpoint.size
    before = max((h.checkpoint.size for h in good if h.checkpoint.size < size), default=0)
    beyond = next((h for h in good if h.checkpoint.size >= size), None)
    if beyond is not None:
        # The tree that was signed for later has another beginning than the one that was signed for before.
        return Finding(
            fault=Fault.FORK,
            index=before,
            last=size - 1,
            message=f"the key signed for two histories: the {beyond.checkpoint.size} records of the checkpoint"
            f" {beyond.name} do not begin with the {size} of the checkpoint {bad.name}",
            evidence=(bad.text, beyond.text),
        )
    return Finding(
        fault=Fault.REWRITTEN,
        index=before,
        last=size - 1,
        message=f"records {before + 1} to {size} are in order by themselves, and not those that were signed for"
        f" (checkpoint {bad.name})",
        evidence=(bad.text,),
    )


def _behind(ahead: Sequence[_Head], size: int) -> Finding:
    furthest = ahead[-1]
    signed = furthest.checkpoint.size
    if any(not head.outside for head in ahead):
        return Finding(
            fault=Fault.TRUNCATED,
            index=size,
            last=signed - 1,
            count=signed - size,
            message=f"the end is gone: {signed} records were signed for, and {size} are there",
            evidence=(furthest.text,),
        )
    return Finding(
        fault=Fault.RESTORED,
        index=size,
        last=signed - 1,
        count=signed - size,
        message=f"an older state: the log says that it has {size} records, and the checkpoint {furthest.name} was"
        f" signed for {signed}",
        evidence=(furthest.text,),
    )
