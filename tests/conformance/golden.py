"""The commits whose bytes lie in `entries/`, as each format wrote them: they decode for ever.

To add one, put it at the end of `GOLDEN` and run `python -m tests.conformance.golden`, which writes only files that are
not there yet. A file that is there is never written again: if it no longer decodes, the code is wrong.
"""

from pathlib import Path
from typing import Final

from eventlog.codec import encode_commit
from eventlog.entries import (
    AccountsErased,
    AnyFact,
    Audited,
    Commit,
    ConnectionRemoved,
    ConnectionSaved,
    DeadLettered,
    DeadLetterSettled,
    Definition,
    DefinitionDeleted,
    DefinitionFailed,
    DefinitionSaved,
    DefinitionSwitched,
    Delivered,
    DestinationDeleted,
    DestinationSaved,
    Entered,
    Erased,
    EventsForgotten,
    Exited,
    IdAdded,
    IdentityRulesChanged,
    IdRefused,
    IdSeenEarlier,
    Merged,
    Options,
    RegulationSaved,
    Rejected,
    SourceRecord,
    SourceSaved,
    SpaceRecord,
    SpaceSaved,
    Suppressed,
    Ticked,
    TokenRecord,
    TokenSaved,
    TraitComputed,
    Unsuppressed,
)
from eventlog.erasure import erased
from tests.eventlog.worlds import START_MS, commit, event

ENTRIES: Final = Path(__file__).parent / "entries"

_DEFINITION: Final = Definition(
    number=3,
    id="aud_1",
    kind="audience",
    key="buyers",
    name="Buyers",
    entity_type="USERS",
    query="event('Order Completed').count() >= 1",
    version=2,
    description="Those who bought",
    options=Options(False, ("email",), 30, False),
    enabled=False,
    created_ms=START_MS,
    updated_ms=START_MS + 1,
    created_by="ann",
    updated_by="bob",
    created_seq=7,
)

FACTS: Final[tuple[AnyFact, ...]] = (
    Ticked(START_MS),
    IdAdded(1, "users", "email", "ä@example.com", START_MS, 1, "src_1", "none"),
    IdAdded(2, "accounts", "group_id", "acme", START_MS, 2),
    Merged(1, (4, 5), 2),
    IdRefused(1, "email", "null", "value_blocked", 1),
    IdentityRulesChanged({"limits": {"email": 5}, "blocked": ["-1"]}, "ann"),
    Rejected(3, "m-9", "invalid", "no userId", "src_0", b'{"type":"track"}\xff'),
    Erased(9, "reg_1"),
    Suppressed("abc", "reg_1"),
    Unsuppressed("abc"),
    RegulationSaved({"id": "reg_1", "status": "FINISHED", "counts": [1, 2.5, None, True]}),
    DefinitionSaved(_DEFINITION),
    DefinitionSwitched(3, 2),
    DefinitionFailed(3, 2, "the disk was full"),
    DefinitionDeleted(3, True, "ann"),
    Entered(1, 3, START_MS, 1),
    Exited(1, 3, START_MS + 5, 2),
    TraitComputed(1, 4, 12.5, START_MS, 1),
    TraitComputed(1, 5, ["a", "ö"], START_MS, 1),
    TraitComputed(1, 6, None, START_MS, 1),
    DestinationSaved({"id": "dst_1", "type": "webhook"}),
    DestinationDeleted("dst_1", "ann"),
    ConnectionSaved({"id": "con_1", "paused": False}),
    ConnectionRemoved("con_1", "bob"),
    Delivered("dst_1", 17, ("d1", "d2")),
    DeadLettered("dst_1", {"id": "d3", "status": 400}),
    DeadLetterSettled("dst_1", "d3", "resent"),
    Audited("Audience Created", "ann", "aud_1", "audience", "Buyers"),
)

LATER_FACTS: Final[tuple[AnyFact, ...]] = (
    IdSeenEarlier(1, "users", "email", "ä@example.com", START_MS - 5, 1),
    SpaceSaved(SpaceRecord("spa_1", "shop", "Shop", START_MS)),
    SourceSaved(
        SourceRecord("src_1", "web", "Web", "spa_1", ("h1", "h2"), ("ab", "cd"), False, "m", {"a": [1]}, START_MS)
    ),
    TokenSaved(TokenRecord("tok_1", "ci", "h", "ab", ("admin",), "spa_1", START_MS, START_MS + 1, START_MS + 2)),
)

GOLDEN: Final[dict[str, Commit]] = {
    "format-1-events": commit(1, 3),
    "format-1-every-fact": Commit(100, START_MS, (), FACTS),
    "format-1-events-and-facts-in-packs": commit(1000, 700, (Entered(1, 3, START_MS, 1000), Ticked(START_MS + 1))),
    "format-1-erased": Commit(5, START_MS, (event(5), erased(event(6)), event(7))),
    "format-1-later-facts": Commit(200, START_MS, (), LATER_FACTS),
    "format-1-erased-accounts": Commit(210, START_MS, (), (AccountsErased((3, 4), ((3, "owner", 17),), "reg_1"),)),
    "format-1-forgotten": Commit(220, START_MS, (), (EventsForgotten(START_MS),)),
    "format-1-huge-number": Commit(8, START_MS, (event(8),), (TraitComputed(1, 4, [10**30], START_MS, 8),)),
}

if __name__ == "__main__":
    ENTRIES.mkdir(exist_ok=True)
    for name, golden in GOLDEN.items():
        file = ENTRIES / f"{name}.bin"
        if not file.exists():
            file.write_bytes(encode_commit(golden))
