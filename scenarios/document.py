"""A YAML document as frozen Structs: every error names the file, the line, what is wrong and what would be right.

The types of the Structs are the format: field names, which are needed, what a value may be. A `ValueError` that a
Struct's `__post_init__` raises is told at that Struct's place. YAML is read as PyYAML does, but for three things. Where
text is expected, any plain scalar is its text (`userId` values and names need no quotes); a date is text too, as it is
in JSON; and a key given twice is an error.
"""

import math
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec
import yaml
from msgspec import inspect

from eventlog.errors import InvalidError

FILE_BYTES_MAX: Final = 4 * 1024 * 1024  # ours: a scenario is read by people; the largest random world is under 100 KB
NODES_MAX: Final = 500_000  # ours: values in one document, aliases counted each time (they can multiply)
PROBLEMS_TOLD_MAX: Final = 20  # more than anybody mends in one go

Struct = TypeVar("Struct", bound=msgspec.Struct)
Place = tuple[int, int]  # line and column, from 1
KINDS: Final = {"str": "text", "int": "a number", "float": "a number", "bool": "true or false", "null": "nothing"}


class _Loader(yaml.CSafeLoader):
    """PyYAML's safe loader, to which a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


class Problems(Exception):  # noqa: N818 - internal: callers see InvalidError
    """What is wrong with a document, each with its place."""

    def __init__(self, found: list[tuple[Place, str, str]]) -> None:
        super().__init__(found)
        self.found = found


class Document:
    """A document that was read: its value, and where each part of it stands."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.places: dict[str, Place] = {}
        self.problems: list[tuple[Place, str, str]] = []

    def problem(self, path: str, what: str) -> None:
        """Note that something is wrong at a path such as `steps[2].at`."""
        known = path
        while known not in self.places and known:
            known = known.rpartition(".")[0]
        self.problems.append((self.places.get(known, (1, 1)), path, what))

    def check(self) -> None:
        """Raise InvalidError if anything is wrong."""
        if self.problems:
            raise _error(self.file, self.problems)


@lru_cache(maxsize=16)
def _type_of(kind: type[Struct]) -> inspect.Type:
    """Return what a type of documents looks like: found once, since it takes longer than reading one."""
    return inspect.type_info(kind)


def read_file(path: Path, kind: type[Struct]) -> tuple[Struct, Document]:
    """Return a file's document as a Struct. Raises InvalidError."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise InvalidError("invalid_scenario", f"{path}: {path.stat().st_size} bytes, at most {FILE_BYTES_MAX}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidError("invalid_scenario", f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidError("invalid_scenario", f"{path}: not UTF-8 text") from None
    return read_text(text, kind, file=str(path))


def read_text(text: str, kind: type[Struct], *, file: str) -> tuple[Struct, Document]:
    """Return a document's text as a Struct. Raises InvalidError."""
    document = Document(file)
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise InvalidError("invalid_scenario", f"{file}: empty, expected a mapping that begins with `scenario:`")
        return cast(Struct, _Reader(loader, document).read(root, _type_of(kind), "")), document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise _error(file, [(place, "", f"not YAML: {error.problem or error.context}")]) from None
    except yaml.YAMLError as error:
        raise _error(file, [((1, 1), "", f"not YAML: {error}")]) from None
    except RecursionError:
        raise _error(file, [((1, 1), "", "nested too deeply")]) from None
    except Problems as problems:
        raise _error(file, problems.found) from None
    finally:
        loader.dispose()


def _error(file: str, problems: list[tuple[Place, str, str]]) -> InvalidError:
    told = problems[:PROBLEMS_TOLD_MAX]
    lines = [f"{file}:{line}:{column}: {f'{path}: ' if path else ''}{what}" for (line, column), path, what in told]
    if len(problems) > len(told):
        lines.append(f"{file}: and {len(problems) - len(told)} more")
    return InvalidError("invalid_scenario", "\n".join(lines), field=problems[0][1] or None)


def _place(node: yaml.Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1


class _Reader:
    """One walk over a document's nodes."""

    def __init__(self, loader: _Loader, document: Document) -> None:
        self.loader = loader
        self.document = document
        self.nodes = 0

    def read(self, node: yaml.Node, expected: inspect.Type, path: str) -> Any:
        """Return a node's value as the type that is expected; raise Problems."""
        self.nodes += 1
        if self.nodes > NODES_MAX:
            raise self.wrong(node, path, f"more than {NODES_MAX} values")
        self.document.places[path] = _place(node)
        if isinstance(expected, inspect.AnyType):
            return self.anything(node, path)
        options = expected.types if isinstance(expected, inspect.UnionType) else (expected,)
        for option in options:
            reader = self.reader(node, option)
            if reader is not None:
                return reader(node, option, path)
        wanted = " or ".join(dict.fromkeys(_told(option) for option in options if not _is_null(option)))
        raise self.wrong(node, path, f"found {_found(node)}, expected {wanted}")

    def reader(self, node: yaml.Node, option: inspect.Type) -> Callable[[Any, Any, str], Any] | None:
        """Return what reads this node as that type, None if it cannot be one."""
        if isinstance(node, yaml.MappingNode):
            if isinstance(option, inspect.StructType):
                return self.struct
            return self.mapping if isinstance(option, inspect.DictType) else None
        if isinstance(node, yaml.SequenceNode):
            return self.sequence if isinstance(option, inspect.VarTupleType) else None
        if _tag(node) == "null":
            return (lambda *_: None) if _is_null(option) else None
        return self.scalar if isinstance(option, _SCALARS) else None

    # -- by kind of node -----------------------------------------------------------------------------------------------

    def struct(self, node: yaml.MappingNode, expected: inspect.StructType, path: str) -> Any:
        """Return a mapping as a Struct."""
        fields = {field.encode_name: field for field in expected.fields}
        given: dict[str, Any] = {}
        problems: list[tuple[Place, str, str]] = []
        for key, key_node, value in self.pairs(node, path):
            if key not in fields:
                near = get_close_matches(key, fields, n=1)
                hint = f"; did you mean {near[0]}?" if near else f", expected {', '.join(fields)}"
                problems.append((_place(key_node), _join(path, key), f"there is no {key!r} here{hint}"))
                continue
            try:
                given[fields[key].name] = self.read(value, fields[key].type, _join(path, key))
            except Problems as found:
                problems += found.found
        missing = [name for name, field in fields.items() if field.required and name not in dict(_keys(node))]
        problems += [(_place(node), path, f"{name!r} is missing") for name in missing]
        if problems:
            raise Problems(problems)
        try:
            return expected.cls(**given)
        except ValueError as error:
            raise self.wrong(node, path, str(error)) from None

    def mapping(self, node: yaml.MappingNode, expected: inspect.DictType, path: str) -> dict[str, Any]:
        """Return a mapping from text to one type."""
        items = ((key, value, expected.value_type, _join(path, key)) for key, _, value in self.pairs(node, path))
        return dict(self.each(items))

    def sequence(self, node: yaml.SequenceNode, expected: inspect.VarTupleType, path: str) -> tuple[Any, ...]:
        """Return a sequence of one type."""
        items = ((index, item, expected.item_type, f"{path}[{index}]") for index, item in enumerate(node.value))
        return tuple(value for _, value in self.each(items))

    def each(self, items: Iterable[tuple[Any, yaml.Node, inspect.Type, str]]) -> list[tuple[Any, Any]]:
        """Return all items read, or raise the problems of all of them."""
        values: list[tuple[Any, Any]] = []
        problems: list[tuple[Place, str, str]] = []
        for key, node, expected, path in items:
            try:
                values.append((key, self.read(node, expected, path)))
            except Problems as found:
                problems += found.found
        if problems:
            raise Problems(problems)
        return values

    def scalar(self, node: yaml.ScalarNode, expected: inspect.Type, path: str) -> Any:
        """Return a scalar as text, a number, a boolean or one of a few words."""
        if isinstance(expected, inspect.StrType):
            return node.value
        if isinstance(expected, inspect.LiteralType):
            if node.value in expected.values:
                return node.value
            raise self.wrong(node, path, f"found {node.value!r}, expected {' or '.join(map(str, expected.values))}")
        value = self.loader.construct_object(node)
        wanted: tuple[type, ...] = {inspect.IntType: (int,), inspect.FloatType: (int, float)}.get(
            type(expected), (bool,)
        )
        if isinstance(value, wanted) and isinstance(value, bool) == (wanted == (bool,)) and _is_finite(value):
            return value
        raise self.wrong(node, path, f"found {_found(node)}, expected {_told(expected)}")

    def anything(self, node: yaml.Node, path: str) -> Any:
        """Return a node as a JSON value."""
        any_type = inspect.AnyType()
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, inspect.DictType(inspect.StrType(), any_type), path)
        if isinstance(node, yaml.SequenceNode):
            return list(self.sequence(node, inspect.VarTupleType(any_type), path))
        if _tag(node) not in KINDS:
            raise self.wrong(node, path, f"found a YAML {_tag(node)}, expected what JSON has")
        value = self.loader.construct_object(node)
        if not _is_finite(value):
            raise self.wrong(node, path, f"found {node.value}, expected a number that JSON has")
        return value

    def pairs(self, node: yaml.MappingNode, path: str) -> list[tuple[str, yaml.Node, yaml.Node]]:
        """Return a mapping's keys as text, with the nodes of key and value; each key once."""
        own: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.wrong(key_node, path, "found a key that is no text")
            if key_node.value in own:
                raise self.wrong(key_node, _join(path, key_node.value), "given twice")
            own.add(key_node.value)
        self.loader.flatten_mapping(node)  # `<<` of YAML: what is merged comes first, and what stands here overrides it
        last = {key_node.value: (key_node, value) for key_node, value in node.value}
        node.value = list(last.values())  # an alias reads this node again
        return [(key_node.value, key_node, value) for key_node, value in node.value]

    def wrong(self, node: yaml.Node, path: str, what: str) -> Problems:
        """Return one problem, to be raised."""
        return Problems([(_place(node), path, what)])


_SCALARS: Final = (inspect.StrType, inspect.IntType, inspect.FloatType, inspect.BoolType, inspect.LiteralType)


def _keys(node: yaml.MappingNode) -> list[tuple[str, yaml.Node]]:
    return [(key.value, value) for key, value in node.value]


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _tag(node: yaml.Node) -> str:
    return str(node.tag).rpartition(":")[2]


def _is_null(option: inspect.Type) -> bool:
    return isinstance(option, inspect.NoneType)


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _found(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    value = node.value if len(node.value) <= 40 else f"{node.value[:39]}…"
    return f"{KINDS.get(_tag(node), _tag(node))} {value!r}" if value else KINDS.get(_tag(node), _tag(node))


def _told(option: inspect.Type) -> str:
    match option:
        case inspect.StructType(fields=fields):
            return f"a mapping with {', '.join(field.encode_name for field in fields)}"
        case inspect.DictType():
            return "a mapping"
        case inspect.VarTupleType():
            return "a list"
        case inspect.IntType():
            return "a whole number"
        case inspect.FloatType():
            return "a number"
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType(values=values):
            return " or ".join(map(str, values))
    return "text"
