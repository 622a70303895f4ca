# ruff: noqa: E501 - lines of the engine, as they stand
"""Lines of the engine broken on purpose, one for each rule of the language: a scenario of the library must notice.

Quick: every line is there, and every scenario. Slow: each is broken in a copy, and its scenario fails. `python -m
tests.scenarios.test_broken_lines` writes the table of docs/conformance.md.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from msgspec import Struct

REPOSITORY: Final = Path(__file__).parents[2]
CONDITIONS: Final = Path("actors") / "conditions"
RUN: Final = """
import sys
from pathlib import Path
import anyio
from scenarios.runner import run_file
sys.exit(0 if anyio.run(run_file, Path(sys.argv[1])).passed else 1)
"""


class Line(Struct, frozen=True):
    """A rule, the line that keeps it, what it is broken into, and the scenario that goes red."""

    rule: str
    file: str
    kept: str
    broken: str
    scenario: str

    @property
    def path(self) -> Path:
        """Return the file within the repository."""
        return CONDITIONS / self.file


LINES: Final = (
    Line(
        "a count leaves `within(d)` when it is d old",
        "queries.py",
        "return len(state) - bisect_right(state, now_ms - self.before_ms) if state else 0",
        "return len(state) - bisect_left(state, now_ms - self.before_ms) if state else 0",
        "window_edges",
    ),
    Line(
        "so does `>= n`, kept as n timestamps",
        "leaves.py",
        "return bool(newest[-newest_needed] > now_ms - before_ms)",
        "return bool(newest[-newest_needed] >= now_ms - before_ms)",
        "active_30_to_90_days_ago",
    ),
    Line(
        "the exit is dated at d, no millisecond later",
        "leaves.py",
        'due=f"n[0] + {query.before_ms}"',
        'due=f"n[0] + {query.before_ms + 1}"',
        "active_30_to_90_days_ago",
    ),
    Line(
        "`between(a, b)`: in from a on",
        "leaves.py",
        "last = bisect_right(records, [now_ms - after_ms, FOREVER]) if after_ms else len(records)\n        return last >=",
        "last = bisect_right(records, [now_ms - after_ms - 1, FOREVER]) if after_ms else len(records)\n        return last >=",
        "active_30_to_90_days_ago",
    ),
    Line(
        "`between(a, b)`: out at b",
        "leaves.py",
        "return last >= bound and bool(records[last - bound][0] > now_ms - before_ms)",
        "return last >= bound and bool(records[last - bound][0] >= now_ms - before_ms)",
        "active_30_to_90_days_ago",
    ),
    Line(
        "several windows hold all",
        "queries.py",
        "self.before_ms = min((window.before_ms for window in own), default=FOREVER)",
        "self.before_ms = max((window.before_ms for window in own), default=FOREVER)",
        "windows_combined",
    ),
    Line("`sources(exclude:)`", "writing.py", 'tests.append(f"src not in', 'tests.append(f"src in', "docs_traits"),
    Line(
        "`since` is closed",
        "writing.py",
        'f"ts >= {subscription.since_ms}"',
        'f"ts > {subscription.since_ms}"',
        "docs_traits",
    ),
    Line(
        "`until` is open",
        "writing.py",
        'f"ts < {subscription.until_ms}"',
        'f"ts <= {subscription.until_ms}"',
        "since_and_until",
    ),
    Line(
        "a gap of d ends a session",
        "queries.py",
        "records[start][0] - records[start - 1][0] < gap_ms",
        "records[start][0] - records[start - 1][0] <= gap_ms",
        "session",
    ),
    Line(
        "a session is over after d",
        "queries.py",
        "if now_ms - records[last - 1][0] >= gap_ms:\n        return last\n    start",
        "if now_ms - records[last - 1][0] > gap_ms:\n        return last\n    start",
        "docs_marketing",
    ),
    Line("`count`", "queries.py", "(s.get(INDEX) or 0) + 1", "(s.get(INDEX) or 0) + 2", "account_events_together"),
    Line(
        "`sum` adds fractions",
        "queries.py",
        "_add_fraction(state, *number.as_integer_ratio())",
        "_add_fraction(state, *round(number).as_integer_ratio())",
        "big_spender",
    ),
    Line(
        "`sum` of nothing is 0",
        "queries.py",
        "return 0 if state is None else quotient",
        "return None if state is None else quotient",
        "reducers_of_nothing",
    ),
    Line(
        "`avg` of nothing is null",
        "queries.py",
        "if state is None or not state[2]:\n            return None",
        "if state is None or not state[2]:\n            return 0",
        "reducers_of_nothing",
    ),
    Line(
        "`min`, `max`",
        "queries.py",
        'not (seen < state[0] if self.reducer.name == "min" else seen > state[0])',
        'not (seen > state[0] if self.reducer.name == "min" else seen < state[0])',
        "docs_product",
    ),
    Line(
        "`as string`",
        "queries.py",
        'seen = text_of(value) if self.reducer.cast == "string" else number_of(value)',
        "seen = number_of(value)",
        "docs_traits",
    ),
    Line(
        "`first`, `last`",
        "queries.py",
        'earlier == (self.reducer.name == "first")',
        'earlier != (self.reducer.name == "first")',
        "context_fields",
    ),
    Line(
        "`first`, `last` pass over null",
        "queries.py",
        "[] if value is None else [event_ms, seq, value]",
        "[event_ms, seq, value]",
        "context_fields",
    ),
    Line(
        "`mode` needs its frequency",
        "queries.py",
        "if most < max(reducer.frequency, 1):",
        "if most <= max(reducer.frequency, 1):",
        "docs_marketing",
    ),
    Line(
        "ties of `mode` go to the first",
        "queries.py",
        "text = min(text for text, count in tally.items() if count == most)",
        "text = max(text for text, count in tally.items() if count == most)",
        "docs_traits",
    ),
    Line(
        "`as array`",
        "queries.py",
        'if reducer.cast == "array":\n            return',
        'if reducer.cast == "arrays":\n            return',
        "docs_traits",
    ),
    Line(
        "`unique` is sorted",
        "queries.py",
        "return sorted(tally) if tally else None",
        "return sorted(tally, reverse=True) if tally else None",
        "docs_traits",
    ),
    Line(
        "`unique` of nothing is null",
        "queries.py",
        "return sorted(tally) if tally else None",
        "return sorted(tally)",
        "session",
    ),
    Line(
        "`!=` of a missing value is false",
        "compare.py",
        "if op in _NEGATED:\n        return lambda value: _has(value) and",
        "if op in _NEGATED:\n        return lambda value:",
        "arrays",
    ),
    Line(
        "`omits` of a missing value is true",
        "compare.py",
        'if op == "omits":\n        return lambda value: not',
        'if op == "omits":\n        return lambda value: _has(value) and not',
        "arrays",
    ),
    Line(
        "numeric strings are numbers",
        "values.py",
        "if kind is str and len(value) <= NUMBER_TEXT_MAX:",
        "if kind is bytes and len(value) <= NUMBER_TEXT_MAX:",
        "arrays",
    ),
    Line(
        "booleans are no numbers",
        "values.py",
        "    if kind is int:\n        return value if",
        "    if kind is int or kind is bool:\n        return value if",
        "reducers_of_numbers",
    ),
    Line(
        "the text of 5.0 is `5`",
        "values.py",
        "return None if plain is None else repr(plain)",
        "return None if plain is None else repr(float(plain))",
        "right_side_null",
    ),
    Line("`true` matches its spelling", "compare.py", "value is right or value == spelt", "value is right", "booleans"),
    Line(
        "of an array any element",
        "compare.py",
        "return any(item is not None and type(item) is not list and holds(item) for item in value)",
        "return all(item is not None and type(item) is not list and holds(item) for item in value)",
        "arrays",
    ),
    Line(
        "of an object no positive comparison",
        "compare.py",
        "return value is not None and kind is not dict and holds(value)",
        "return value is not None and (kind is dict or holds(value))",
        "objects",
    ),
    Line(
        "`[]` exists",
        "compare.py",
        'if op == "exists":\n        return lambda value: value is not None',
        'if op == "exists":\n        return lambda value: value is not None and value != []',
        "edges_to_the_millisecond",
    ),
    Line(
        "a null on the right is false",
        "compare.py",
        "if any(right is None or type(right) in (list, dict) for right in rights):\n        return False",
        "if any(type(right) in (list, dict) for right in rights):\n        return False",
        "right_side_null",
    ),
    Line(
        "text is case-sensitive",
        "compare.py",
        "return lambda value: text_of(value) == right",
        "return lambda value: (text_of(value) or '').lower() == right.lower()",
        "edges_to_the_millisecond",
    ),
    Line("`contains`", "compare.py", "lambda text, part: part in text", "lambda text, part: part == text", "arrays"),
    Line(
        "`starts_with`",
        "compare.py",
        "_on_text(str.startswith, rights)",
        "_on_text(str.endswith, rights)",
        "docs_marketing",
    ),
    Line(
        "`one_of` tries all",
        "compare.py",
        "lambda value: any(is_it(value) for is_it in tests)",
        "lambda value: tests[0](value)",
        "arrays",
    ),
    Line(
        "`before_date` is open",
        "compare.py",
        'return date < bound if op == "before_date"',
        'return date <= bound if op == "before_date"',
        "dates",
    ),
    Line(
        "`within_last`: both ends",
        "compare.py",
        "return now_ms - span_ms <= date_ms <= now_ms",
        "return now_ms - span_ms < date_ms <= now_ms",
        "edges_to_the_millisecond",
    ),
    Line(
        "`within_next`: both ends",
        "compare.py",
        "return now_ms <= date_ms <= now_ms + span_ms",
        "return now_ms < date_ms <= now_ms + span_ms",
        "edges_to_the_millisecond",
    ),
    Line(
        "`before_last`: its end",
        "compare.py",
        "return date_ms <= now_ms - span_ms",
        "return date_ms < now_ms - span_ms",
        "dates_around_now",
    ),
    Line(
        "`after_next`: its end",
        "compare.py",
        "return date_ms >= now_ms + span_ms",
        "return date_ms > now_ms + span_ms",
        "edges_to_the_millisecond",
    ),
    Line(
        "a date leaves by the clock alone, on time",
        "compare.py",
        "edges += (date, date + span_ms + 1)",
        "edges += (date, date + span_ms + 2)",
        "edges_to_the_millisecond",
    ),
    Line(
        "`matches` searches",
        "compare.py",
        "search = pattern(str(right)).search",
        "search = pattern(str(right)).match",
        "docs_marketing",
    ),
    Line(
        "`AND`",
        "program.py",
        'word = " and " if isinstance(tree, And) else " or "\n            return f"({word.join(self._boolean',
        'word = " or " if isinstance(tree, And) else " or "\n            return f"({word.join(self._boolean',
        "active_30_to_90_days_ago",
    ),
    Line(
        "`NOT`",
        "program.py",
        'return f"(not {self._boolean(node, tree.of, scope, bounds)})"',
        'return f"(bool {self._boolean(node, tree.of, scope, bounds)})"',
        "account_quantifiers",
    ),
    Line(
        "`ANY`",
        "leaves.py",
        "return lambda account, now_ms: account.counts.get(hidden, 0) > 0",
        "return lambda account, now_ms: account.counts.get(hidden, 0) > 1",
        "account_quantifiers",
    ),
    Line(
        "`ALL` needs a user",
        "leaves.py",
        "0 < len(account.users) == account.counts.get(hidden, 0)",
        "len(account.users) == account.counts.get(hidden, 0)",
        "account_quantifiers",
    ),
    Line(
        "`NONE` holds with no users",
        "leaves.py",
        "return lambda account, now_ms: account.counts.get(hidden, 0) == 0",
        "return lambda account, now_ms: account.users and account.counts.get(hidden, 0) == 0",
        "account_quantifiers",
    ),
    Line(
        "a nested event comes after its parent, ties by sequence",
        "joins.py",
        "return bisect_left(records, [parent[0], parent[1] + 1])",
        "return bisect_left(records, [parent[0]])",
        "checkout_not_completed",
    ),
    Line(
        "`within(parent:)`: the end is in",
        "joins.py",
        "last = bisect_left(records, [parent[0] + self.before_ms + 1], first, last)",
        "last = bisect_left(records, [parent[0] + self.before_ms], first, last)",
        "edges_to_the_millisecond",
    ),
    Line(
        "`between(parent:)`: open at its beginning",
        "joins.py",
        "return bisect_left(records, [parent[0] + self.after_ms + 1])",
        "return bisect_left(records, [parent[0] + self.after_ms])",
        "edges_to_the_millisecond",
    ),
    Line(
        "`between(parent: 0 days, …)`: the parent's own instant is out",
        "joins.py",
        "if self.after_ms >= 0:",
        "if self.after_ms > 0:",
        "between_from_the_parent_on",
    ),
    Line(
        "`property = property(parent:)`: the right side's type decides",
        "joins.py",
        "return (number,) if text is None else (text, number)",
        "return (text,) if text is not None else (number,)",
        "same_product_viewed_and_ordered",
    ),
    Line(
        "a nested event tips its parents",
        "joins.py",
        "counts: tuple[int, ...]\n) -> list[Record]:\n",
        "counts: tuple[int, ...]\n) -> list[Record]:\n    counts = counts[1:]\n",
        "account_events_together",
    ),
    Line(
        "a nested window relative to now",
        "chains.py",
        "return False\n        return self.own is None or",
        "pass\n        return self.own is None or",
        "nested_relative_to_now",
    ),
    Line(
        "… changes by the clock alone",
        "funnels.py",
        "if first < last:\n                        self._ask_again(state, stream.index, records[first:last])",
        "if first < last - 1:\n                        self._ask_again(state, stream.index, records[first:last])",
        "nested_relative_to_now",
    ),
    Line(
        "… and takes its parents with it",
        "funnels.py",
        "            else:\n                self._tip(state, stream, record, comes=False)\n                self._unfile",
        "            else:\n                self._unfile",
        "nested_relative_to_now",
    ),
    Line(
        "a changed trait asks a `where` again",
        "funnels.py",
        "if repr(asked) != repr(state.asked):",
        "if False:",
        "docs_traits",
    ),
    Line(
        "more nested events may make it true",
        "chains.py",
        "stream.settled = slopes == {1} if slopes in ({1}, {-1}) else None",
        "stream.settled = slopes == {-1} if slopes in ({1}, {-1}) else None",
        "docs_product",
    ),
    Line(
        "presence sets windows aside",
        "program.py",
        'windows=(), expires_after_ms=None, reducer=Reducer("count"))',
        'expires_after_ms=None, reducer=Reducer("count"))',
        "docs_traits",
    ),
    Line(
        "`where`",
        "writing.py",
        "tests = [self._condition(condition) for condition in subscription.conditions]",
        "tests = [self._condition(condition) for condition in subscription.conditions][1:]",
        "docs_marketing",
    ),
    Line(
        "`page('X')` looks at `name`",
        "program.py",
        "name=event.name,\n        conditions",
        'name=None if event.call == "page" else event.name,\n        conditions',
        "dashboard_not_viewed",
    ),
    Line(
        "`event()` is any call",
        "program.py",
        '"any": (TRACK, PAGE, SCREEN)',
        '"any": (TRACK, PAGE)',
        "active_30_to_90_days_ago",
    ),
)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.rule)
def test_every_line_that_keeps_a_rule_is_there(line: Line) -> None:
    assert line.kept in (REPOSITORY / line.path).read_text(encoding="utf-8")
    assert (REPOSITORY / "scenarios" / "library" / f"{line.scenario}.yaml").exists()


def test_no_rule_stands_twice() -> None:
    assert len({line.rule for line in LINES}) == len(LINES)


def test_the_page_shows_every_rule_and_what_notices() -> None:
    assert table() in (REPOSITORY / "docs" / "conformance.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources in which lines may be broken."""
    root = tmp_path_factory.mktemp("broken")
    for package in ("eventlog", "actors", "adapters", "scenarios"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(REPOSITORY / package, root / package, ignore=ignored)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES, ids=lambda line: line.rule)
def test_a_broken_line_is_noticed_by_its_scenario(line: Line, copy: Path) -> None:
    file, scenario = copy / line.path, copy / "scenarios" / "library" / f"{line.scenario}.yaml"
    source = file.read_text(encoding="utf-8")
    try:
        file.write_text(source.replace(line.kept, line.broken, 1), encoding="utf-8")
        told = subprocess.run([sys.executable, "-B", "-c", RUN, scenario], cwd=copy, check=False, capture_output=True)
    finally:
        file.write_text(source, encoding="utf-8")
    assert told.returncode == 1, told.stderr.decode()[-500:]


def table() -> str:
    """Return the table of the page."""
    rows = [f"| {line.rule} | `{line.file}` | `{line.scenario}` |" for line in LINES]
    return "\n".join(["| rule whose line is broken | in | goes red |", "|---|---|---|", *rows])


if __name__ == "__main__":
    print(table())  # noqa: T201 - a program
