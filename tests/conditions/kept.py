"""One question as the engine keeps it: compiled, fed through its generated functions, with a profile's state."""

from typing import Any

from actors.conditions.program import USER, Program, Spec
from actors.entities import User, copied, decode, encode
from actors.language import tree
from eventlog.entries import TRACK
from eventlog.messages import EventData
from tests.conditions.plain import Happened


class Kept:
    """A question, or a comparison, with what one profile keeps of it."""

    def __init__(self, asked: tree.Event | tree.Comparison) -> None:
        self.program = Program()
        kind: Any = "trait" if isinstance(asked, tree.Event) else "audience"
        self.program.set_definitions([Spec(1, "it", kind, USER, asked)])
        self.node = self.program.nodes[1]
        question = self.node.asked or self.node.leaves[0].asked[0]
        self.query = question.query
        self.index = question.index
        self.user = User(1, self.program)
        self.written = 0

    @property
    def state(self) -> Any:
        """Return what is kept."""
        return self.user.s.get(self.index)

    def hear(self, one: Happened, now_ms: int) -> None:
        """Take an event."""
        handler = self.program.handler(USER, TRACK, one.name)
        if handler is not None:
            data = EventData(properties=one.properties)
            handler.run(self.user.s, one.ms, one.seq, data, "web", now_ms)

    def write_trait(self, key: str, value: Any) -> None:
        """Change a trait."""
        self.written += 1
        self.user.write_trait(key, self.written, self.written, value)

    def value(self, now_ms: int) -> Any:
        """Return the answer."""
        return self.query.value(self.state, now_ms, self.user)

    def due_ms(self, now_ms: int) -> int | None:
        """Return when the answer may next change by itself."""
        return self.query.due_ms(self.state, now_ms, self.user)

    def join(self, other: "Kept", now_ms: int) -> None:
        """Take over what another profile keeps of the same question, as a merge of profiles does."""
        if other.state is not None:
            theirs = self.query.load(copied(self.query.dump(other.state)))
            self.user.s[self.index] = theirs if self.state is None else self.query.merge(self.state, theirs, now_ms)

    def thaw(self) -> None:
        """Put the state away as bytes and bring it back."""
        if self.state is not None:
            self.user.s[self.index] = self.query.load(decode(encode(self.query.dump(self.state))))
