"""Where the refused events of a space lie in its log: an index, so that a page of them reads no more than itself.

A row is written in one transaction with the commit that holds the refusal. Its key is the sequence negated: a table is
read forward, and the newest come first. A log older than the index is looked through from where the index begins.
"""

from collections.abc import Iterator
from typing import Final

from eventlog.entries import Commit, Rejected
from eventlog.log import META, REJECTIONS, Changes, Key, Log

REJECTIONS_PROJECTION: Final = "rejections"
FROM_KEY: Final = ("rejections_from",)  # in META: since which sequence the index knows every refusal
RUN_GAP: Final = 1_000  # entries between two refusals that are read at one go
STEP: Final = 10_000  # entries of a log without index that are looked through at first

Row = tuple[int, int, Rejected]  # sequence, recorded ms, refusal


class Rejections:
    """The refused events of a space."""

    def __init__(self, log: Log) -> None:
        self._log = log
        begun = log.get(META, FROM_KEY)
        self._from_seq = log.last_seq + 1 if begun is None else int(begun)

    def changes(self, commit: Commit) -> Changes:
        """Return the rows of a commit's refusals."""
        facts = enumerate(commit.facts, commit.first_seq + len(commit.events))
        rows = [((-seq,), b"") for seq, fact in facts if isinstance(fact, Rejected)]
        begun = [(FROM_KEY, str(self._from_seq).encode())]
        return Changes(REJECTIONS_PROJECTION, commit.last_seq, puts=((REJECTIONS, rows), (META, begun)))

    def newest(self, before_seq: int | None, limit: int) -> list[Row]:
        """Return refusals, the newest first, those before a sequence."""
        before = self._log.last_seq + 1 if before_seq is None else before_seq
        after: Key = (-before,)
        seqs = [-int(key[0]) for key, _ in self._log.range(REJECTIONS, (), after, limit)]
        found: list[Row] = []
        for first, last in _runs(seqs):
            found += self._between(first - 1, last)
        if len(found) < limit:
            found += self._looked_through(min(before, self._from_seq) - 1, limit - len(found))
        return found[:limit]

    def _looked_through(self, until_seq: int, limit: int) -> list[Row]:
        """Return refusals of a log from before the index: further and further back."""
        found: list[Row] = []
        step = STEP
        while until_seq > 0 and len(found) < limit:
            after_seq = max(0, until_seq - step)
            found += self._between(after_seq, until_seq)
            until_seq, step = after_seq, 2 * step
        return found

    def _between(self, after_seq: int, until_seq: int) -> list[Row]:
        return [
            (seq, at_ms, fact)
            for at_ms, facts in self._log.read_facts(after_seq, until_seq)
            for seq, fact in facts
            if isinstance(fact, Rejected)
        ][::-1]


def _runs(seqs: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of sequences that lie close together; they are given, and come, newest first."""
    if not seqs:
        return
    last = first = seqs[0]
    for seq in seqs[1:]:
        if first - seq > RUN_GAP:
            yield first, last
            last = seq
        first = seq
    yield first, last
