"""Reading a log's packs in order: whole commits, or the columns of the events that a scan wants.

Both logs hand in their packs as (sequence, head, body) and get the same checks: packs follow each other without a gap,
a commit is whole, checksums hold. What does not is a LogCorruptError that says where; nothing is left out in silence.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from eventlog.codec import PackView, decode_packs
from eventlog.columns import GROUP_EVENTS_MIN, EventColumns, Names, Wanted
from eventlog.entries import AnyFact, Commit
from eventlog.errors import LogCorruptError


class StoredPack(NamedTuple):
    """A pack as a log has it."""

    first_seq: int
    head: bytes
    body: bytes


def views_of(packs: Iterable[StoredPack], path: str) -> Iterator[PackView]:
    """Yield checked packs that follow each other without a gap."""
    expected: int | None = None
    for stored in packs:
        if expected is not None and stored.first_seq != expected:
            raise LogCorruptError(path, f"entries {expected} to {stored.first_seq - 1} are missing")
        view = PackView(stored.head, stored.body, path, stored.first_seq)
        expected = view.header.last_seq + 1
        yield view


def covering(views: Iterable[PackView], path: str, after_seq: int, until_seq: int) -> Iterator[PackView]:
    """Pass on the packs of commits that begin by `until_seq`, and make sure that they cover (after_seq, until_seq]."""
    if until_seq <= after_seq:
        return
    reached = after_seq
    for view in views:
        if reached == after_seq and view.header.first_seq > after_seq + 1:
            break
        if view.header.commit_seq > until_seq:
            return
        reached = view.header.last_seq
        yield view
    if reached < until_seq:
        raise LogCorruptError(path, f"entries from {reached + 1} on are missing, {until_seq} is the last one known")


def commits_of(views: Iterable[PackView], path: str) -> Iterator[Commit]:
    """Yield whole commits; the first pack has to be the first of its commit."""
    return map(decode_packs, grouped(views, path))


def facts_of(
    views: Iterable[PackView], path: str, after_seq: int, until_seq: int
) -> Iterator[tuple[int, list[tuple[int, AnyFact]]]]:
    """Yield of each commit with facts in (after_seq, until_seq] when it was recorded, and those with their sequences.

    Nothing else of a pack is decoded.
    """
    for of_commit in grouped(views, path):
        found = [
            (seq, fact)
            for view in of_commit
            if view.header.facts_count and view.header.last_seq > after_seq
            for seq, fact in enumerate(view.facts(), view.header.first_seq + view.header.events_count)
            if after_seq < seq <= until_seq
        ]
        if found:
            yield of_commit[0].header.at_ms, found


def grouped(views: Iterable[PackView], path: str) -> Iterator[list[PackView]]:
    """Yield the packs of each commit; the first pack has to be the first of its commit."""
    gathered: list[PackView] = []
    for view in views:
        header = view.header
        if header.commit_seq != (gathered[0].header.first_seq if gathered else header.first_seq):
            raise LogCorruptError(path, f"the pack at entry {header.first_seq} belongs to commit {header.commit_seq}")
        gathered.append(view)
        if header.ends_commit:
            yield gathered
            gathered = []
    if gathered:
        raise LogCorruptError(path, f"commit {gathered[0].header.first_seq} is not whole")


def columns_of(views: Iterable[PackView], names: Names, after_seq: int, until_seq: int) -> Iterator[EventColumns]:
    """Yield the wanted events with after_seq < seq <= until_seq, a group of packs at a time."""
    wanted = Wanted(names)
    group: list[PackView] = []
    events_count = 0
    for view in views:
        if not view.header.events_count or not wanted.some_of(view.tables[0]):
            continue
        group.append(view)
        events_count += view.header.events_count
        if events_count >= GROUP_EVENTS_MIN:
            yield from _chosen(group, wanted, after_seq, until_seq)
            group, events_count = [], 0
    if group:
        yield from _chosen(group, wanted, after_seq, until_seq)


def _chosen(group: list[PackView], wanted: Wanted, after_seq: int, until_seq: int) -> Iterator[EventColumns]:
    columns = EventColumns(group)
    mask = wanted.table(columns.names)[columns.kind, columns.name]
    if columns.seq[0] <= after_seq or columns.seq[-1] > until_seq:
        mask &= (columns.seq > after_seq) & (columns.seq <= until_seq)
    if mask.all():
        yield columns
    elif mask.any():
        yield columns.select(mask)


def edited_commit(
    views: list[PackView],
    edit: Callable[[Commit], Commit],
    touching: Callable[[EventColumns], bool] | None,
    mentioning: Callable[[Sequence[AnyFact]], bool] | None,
) -> Commit | None:
    """Return what an edit makes of the commit in these packs, None when it stays as it is."""
    if (touching is not None or mentioning is not None) and not _is_meant(views, touching, mentioning):
        return None
    before = decode_packs(views)
    after = edit(before)
    if after is before:
        return None
    assert (after.first_seq, after.at_ms, len(after.events), len(after.facts)) == (
        before.first_seq,
        before.at_ms,
        len(before.events),
        len(before.facts),
    ), f"an edit of commit {before.first_seq} changed more than its entries' contents"
    return after


def _is_meant(
    views: list[PackView],
    touching: Callable[[EventColumns], bool] | None,
    mentioning: Callable[[Sequence[AnyFact]], bool] | None,
) -> bool:
    """Tell whether some of a commit's events or facts are meant; decodes no more of it than that takes."""
    with_events = [view for view in views if view.header.events_count]
    if touching is not None and with_events and touching(EventColumns(with_events)):
        return True
    return mentioning is not None and any(mentioning(view.facts()) for view in views if view.header.facts_count)
