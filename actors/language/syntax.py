"""Text to its bare shape: calls, chains, junctions and constants, each with the token where it stands.

The grammar (grammar.lark) knows no function names. Whatever does not fit the shape is refused here, by position, with
what would have been accepted there. LALR and a table-driven lexer: linear in the text, and no recursion.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from lark import Lark, Token, Transformer, UnexpectedInput
from lark.exceptions import UnexpectedCharacters, UnexpectedToken
from msgspec import Struct

from actors.language.vocabulary import COMPARISONS, DEFINITION_CHARS_MAX, DEPTH_MAX
from eventlog.errors import QueryError

_FOUND_CHARS_MAX: Final = 40  # of an offending token in a message


class Constant(Struct, frozen=True):
    """A string, number, date or boolean as written."""

    at: Token


class Span(Struct, frozen=True):
    """A number and a unit: `7 days`."""

    at: Token
    unit: Token


class Word(Struct, frozen=True):
    """A bare word, which is always a mistake: said where it matters what should stand there."""

    at: Token


class Items(Struct, frozen=True):
    """Values in square brackets."""

    at: Token
    of: tuple["Shape", ...]


class Argument(Struct, frozen=True):
    """One argument of a call: `value`, `name: value` or `value as type`."""

    value: "Shape"
    name: Token | None = None
    cast: Token | None = None


class Call(Struct, frozen=True):
    """A function's name and its arguments."""

    at: Token
    arguments: tuple[Argument, ...]


class Chain(Struct, frozen=True):
    """Calls joined by dots."""

    calls: tuple[Call, ...]

    @property
    def at(self) -> Token:
        """Return the token it begins with."""
        return self.calls[0].at


class Relation(Struct, frozen=True):
    """Two operands with a comparison's symbol between them."""

    left: "Shape"
    symbol: Token
    right: "Shape"

    @property
    def at(self) -> Token:
        """Return the token it begins with."""
        return self.left.at


class Junction(Struct, frozen=True):
    """Parts joined by AND, or by OR."""

    conjunction: bool
    of: tuple["Shape", ...]

    @property
    def at(self) -> Token:
        """Return the token it begins with."""
        return self.of[0].at


class Prefix(Struct, frozen=True):
    """NOT, ANY, ALL or NONE before an expression."""

    at: Token
    of: "Shape"


Shape = Constant | Span | Word | Items | Chain | Relation | Junction | Prefix

# Shapes begin with their `at`; those that are made of others find it by descending to the left, and how deep the left
# edge goes is bounded by DEPTH_MAX.


class _Shapes(Transformer[Token, Shape]):
    """Make shapes bottom-up, while the text is parsed."""

    def start(self, children: list[Any]) -> Any:
        return children[0]

    def disjunction(self, children: list[Any]) -> Junction:
        return Junction(conjunction=False, of=tuple(children))

    def conjunction(self, children: list[Any]) -> Junction:
        return Junction(conjunction=True, of=tuple(children))

    def prefix(self, children: list[Any]) -> Prefix:
        return Prefix(*children)

    def relation(self, children: list[Any]) -> Relation:
        return Relation(*children)

    def constant(self, children: list[Any]) -> Constant:
        return Constant(children[0])

    def duration(self, children: list[Any]) -> Span:
        return Span(*children)

    def word(self, children: list[Any]) -> Word:
        return Word(children[0])

    def items(self, children: list[Any]) -> Items:
        return Items(children[0], tuple(child for child in children[1:] if child is not None))

    def chain(self, children: list[Any]) -> Chain:
        return Chain(tuple(children))

    def call(self, children: list[Any]) -> Call:
        return Call(children[0], tuple(child for child in children[1:] if child is not None))

    def argument(self, children: list[Any]) -> Argument:
        name, value, cast = children
        return Argument(value, name, cast)


class _Depth:
    """Refuse a definition that is nested too deeply, before anything recurses into it."""

    always_accept: Iterable[str] = ()

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        prefixes = [0]  # prefix operators in force, for each open bracket
        depth = 0
        for token in stream:
            if token.type in _OPENING:
                prefixes.append(0)
                depth += 1
            elif token.type in _CLOSING:
                if len(prefixes) > 1:
                    depth -= 1 + prefixes.pop()
            elif token.type in _PREFIXES:
                prefixes[-1] += 1
                depth += 1
            elif token.type in _SEPARATORS:
                depth -= prefixes[-1]
                prefixes[-1] = 0
            if depth > DEPTH_MAX:
                raise QueryError(
                    line=token.line or 1,
                    column=token.column or 1,
                    found=f"{quoted(token)} as number {depth} of brackets and NOTs inside one another",
                    accepted=(f"at most {DEPTH_MAX}",),
                    hint="give the inner part an audience of its own and refer to it: audience('key')",
                )
            yield token


_OPENING: Final = frozenset({"LPAR", "OPEN_LIST"})
_CLOSING: Final = frozenset({"RPAR", "RSQB"})
_PREFIXES: Final = frozenset({"NOT", "QUANTIFIER"})
_SEPARATORS: Final = frozenset({"_AND", "_OR", "COMMA"})

_LARK: Final = Lark(
    Path(__file__).with_name("grammar.lark").read_text("utf-8"),
    parser="lalr",
    lexer="basic",
    transformer=_Shapes(),
    postlex=_Depth(),
    maybe_placeholders=True,
)

_TERMINALS: Final[dict[str, str]] = {
    "_OR": "OR",
    "_AND": "AND",
    "_AS": "as",
    "NOT": "NOT",
    "QUANTIFIER": "ANY, ALL or NONE",
    "BOOLEAN": "true or false",
    "WORD": "a function such as event, trait or audience",
    "DATE": "a date",
    "NUMBER": "a number",
    "STRING": "text in quotes",
    "COMPARE": "a comparison",
    "OPEN_LIST": "'['",
    "LPAR": "'('",
    "RPAR": "')'",
    "LBRACE": "'{'",
    "RBRACE": "'}'",
    "RSQB": "']'",
    "COMMA": "','",
    "COLON": "':'",
    "DOT": "'.' and a function",
    "$END": "the end",
}
"""How each terminal of the grammar is called in a message."""

_VALUE: Final = frozenset({"STRING", "NUMBER", "DATE", "BOOLEAN", "OPEN_LIST", "WORD", "LPAR"})
_HINTS: Final[dict[str, str]] = {
    "&": "write AND",
    "|": "write OR",
    "!": "write NOT, or != for 'differs from'",
    "\u2018": "use straight quotes: '…'",
    "\u2019": "use straight quotes: '…'",
    "\u201c": 'use straight quotes: "…"',
    "\u201d": 'use straight quotes: "…"',
    "`": "use straight quotes: '…'",
    "\u2265": "write >=",
    "\u2264": "write <=",
    "\u2260": "write !=",
    ";": "a definition has no end mark",
    "/": "a comment begins with --",
    "#": "a comment begins with --",
    "%": "there is no arithmetic",
    "*": "there is no arithmetic",
}


def shape_of(text: str) -> Shape:
    """Return the shape of a definition's text. Raises QueryError."""
    _refuse_unreadable(text)
    try:
        return _LARK.parse(text)  # type: ignore[return-value]  # the transformer makes shapes of lark's trees
    except UnexpectedInput as error:
        raise _worded(error, text) from None


def quoted(token: str) -> str:
    """Return a token as messages show it: in quotes and shortened."""
    shown = token if len(token) <= _FOUND_CHARS_MAX else f"{token[:_FOUND_CHARS_MAX]}…"
    return shown if shown[:1] in {"'", '"'} else f"'{shown}'"


def refusal(at: Token, found: str, accepted: tuple[str, ...] = (), hint: str = "") -> QueryError:
    """Return the error that names a token's place."""
    return QueryError(line=at.line or 1, column=at.column or 1, found=found, accepted=accepted, hint=hint)


def place_of(text: str, offset: int) -> tuple[int, int]:
    """Return the line and column, from 1, of a character of the text."""
    line_start = text.rfind("\n", 0, offset) + 1
    return text.count("\n", 0, offset) + 1, offset - line_start + 1


def _refuse_unreadable(text: str) -> None:
    if len(text) > DEFINITION_CHARS_MAX:
        line, column = place_of(text, DEFINITION_CHARS_MAX)
        raise QueryError(
            line=line,
            column=column,
            found=f"{len(text)} characters",
            accepted=(f"at most {DEFINITION_CHARS_MAX}",),
            hint="split it: other audiences are referred to by audience('key')",
        )
    lone = next((index for index, char in enumerate(text) if "\ud800" <= char <= "\udfff"), None)
    if lone is not None:
        line, column = place_of(text, lone)
        raise QueryError(line=line, column=column, found="half a surrogate pair", accepted=("a whole character",))


def _worded(error: UnexpectedInput, text: str) -> QueryError:
    if isinstance(error, UnexpectedToken):
        return _unexpected_token(error, text)
    assert isinstance(error, UnexpectedCharacters), error
    char = text[error.pos_in_stream or 0]
    if char in {"'", '"'}:
        return QueryError(
            line=error.line,
            column=error.column,
            found=f"a quote {char} that is never closed",
            accepted=(f"a closing {char}",),
            hint=f"a quote inside text is written \\{char}",
        )
    return QueryError(
        line=error.line,
        column=error.column,
        found=quoted(char) if char.isprintable() else f"the character U+{ord(char):04X}",
        accepted=(),
        hint=_HINTS.get(char, "text stands in quotes"),
    )


def _unexpected_token(error: UnexpectedToken, text: str) -> QueryError:
    token = error.token
    parser: Any = error.interactive_parser  # lark leaves its accepts() untyped
    accepts: set[str] = set(parser.accepts())
    if token.type == "$END":
        line, column = place_of(text, len(text))
        hint = "a bracket is still open" if "RPAR" in accepts else ""
        return QueryError(line=line, column=column, found="the end", accepted=_accepted(accepts), hint=hint)
    return refusal(token, quoted(token), _accepted(accepts), _token_hint(token, accepts))


def _accepted(accepts: set[str]) -> tuple[str, ...]:
    """Word what would be accepted; where a value may stand, its many beginnings are one."""
    if accepts == {"WORD"}:
        return ("a function such as where, count or exists",)
    words = [_TERMINALS[name] for name in _TERMINALS if name in accepts and not (_VALUE <= accepts and name in _VALUE)]
    if accepts >= _VALUE:
        words.insert(0, "a value or function such as event('…'), trait('…'), 'text' or 5")
    return tuple(words)


def _token_hint(token: Token, accepts: set[str]) -> str:
    if token.type == "COMPARE" and "_AND" in accepts:
        return "comparisons do not chain: join two with AND"
    if token.type == "COMPARE" and _VALUE <= accepts:
        return "'differs from' is written !=" if str(token) == ">" else ""
    if token.type == "RPAR" and "$END" in accepts:
        return "this bracket was never opened"
    if token.type in {"_AND", "_OR", "_AS"}:
        return "a name that is a keyword stands in quotes" if _VALUE <= accepts else ""
    if token.type == "WORD" and token in COMPARISONS and "DOT" in accepts:
        return f"a function follows a dot: .{token}(…)"
    if token.type == "DOT" and "LPAR" in accepts:
        return "a name stands in quotes and brackets: trait('a.b')"
    if token.type in {"WORD", "STRING", "NUMBER"} and "_AND" in accepts:
        return "join conditions with AND or OR, and quote text as a whole"
    return ""
