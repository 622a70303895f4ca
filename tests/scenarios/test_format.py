"""The scenario file: what is read, and what is said about what cannot be."""

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from eventlog.errors import InvalidError
from scenarios.answers import with_answers
from scenarios.document import FILE_BYTES_MAX
from scenarios.format import (
    AudienceSpec,
    Fault,
    Scenario,
    dumps,
    duration_ms,
    json_schema,
    key_of,
    load,
    loads,
    offset_ms,
    offset_text,
)
from scenarios.generator import random_scenario

REPOSITORY = Path(__file__).parents[2]
LIBRARY = sorted((REPOSITORY / "scenarios" / "library").glob("*.yaml"))
SCHEMA = REPOSITORY / "scenarios" / "schema.json"


def refusal(text: str) -> str:
    with pytest.raises(InvalidError) as caught:
        loads(text, file="a.yaml")
    assert caught.value.code == "invalid_scenario"
    return str(caught.value)


def test_a_whole_scenario_is_read() -> None:
    loaded = loads(
        """
scenario: All of it
seed: 7
start: 2026-03-01T00:00:00Z
settings: {idLimits: {email: 2}, dedupeWindow: 12h}
audiences: [{name: Café Fans, type: ACCOUNTS, query: "x", options: {filterByExternalIds: [email]}}]
traits: [{name: T, query: "y"}]
destinations: [{name: crm, rate: 10, burst: 10, audiences: [cafe_fans]}]
steps:
  - at: +1d12h
    fault: {destination: crm, status: 503, for: 10m}
    define: {audience: {name: Late, query: z}}
    edit: [{audience: {key: late, query: w}}, {trait: {key: t, name: U}}]
    delete: {audience: late}
    connect: {destination: crm, trait: t}
    disconnect: {destination: crm, audience: cafe_fans}
    send: [{type: track, userId: 5, event: 2026-03-01, at: 2026-03-01}]
    expect:
      members: {cafe_fans: [5, ann]}
      traits: {ann: {a: null, b: [1, {c: 2.5}]}}
      delivered: {crm: [{event: Audience Entered}]}
      refused: {audience: {name: N, query: q}}
      rejected: 1
"""
    )
    step = loaded.scenario.steps[0]
    assert loaded.scenario.at_ms(step.at) - loaded.scenario.start_ms == 129_600_000
    assert loaded.step_lines == (10,)
    assert key_of(loaded.scenario.audiences[0]) == "cafe_fans"
    assert step.fault == Fault(destination="crm", status=503, for_="10m")
    assert step.send == ({"type": "track", "userId": 5, "event": "2026-03-01", "at": "2026-03-01"},)
    assert not isinstance(step.expect, tuple)
    assert step.expect.members == {"cafe_fans": ("5", "ann")}
    assert step.expect.traits == {"ann": {"a": None, "b": [1, {"c": 2.5}]}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.yaml: empty"),
        ("[", "a.yaml:2:1: not YAML"),
        (
            "scenario: x\nsteps:\n- at: +1d\n  sned: []\n",
            "a.yaml:4:3: steps[0].sned: there is no 'sned' here; did you mean send?",
        ),
        ("scenario: x\nsteps:\n- send: []\n", "a.yaml:3:3: steps[0]: 'at' is missing"),
        (
            "scenario: x\nsteps:\n- at: +1d\n- at: 1d\n",
            "a.yaml:4:7: steps[1].at: found '1d', expected an offset such as",
        ),
        ("scenario: x\nsteps:\n- at: +1y\n", "a.yaml:3:7: steps[0].at: found '+1y', expected an offset: + and pieces"),
        (
            "scenario: x\nstart: 2026-01-01\nsteps:\n- at: +1d\n- at: 2026-01-01T12:00:00Z\n",
            "a.yaml:5:7: steps[1].at: 2026-01-01T12:00:00Z goes back, expected 2026-01-02T00:00:00.000Z or later",
        ),
        ("scenario: x\nstart: noon\n", "a.yaml:2:8: start: found 'noon', expected a time such as"),
        ("scenario: x\nseed: many\n", "a.yaml:2:7: seed: found text 'many', expected a whole number"),
        ("scenario: x\nseed: 1\nseed: 2\n", "a.yaml:3:1: seed: given twice"),
        ("scenario: ' '\n", "a.yaml:1:11: scenario: empty"),
        ("scenario: x\naudiences:\n- {name: A}\n", "a.yaml:3:3: audiences[0]: 'query' is missing"),
        ("scenario: x\naudiences: {name: A}\n", "a.yaml:2:12: audiences: found a mapping, expected a list"),
        ("scenario: x\naudiences:\n- {name: 日, query: q}\n", "audiences[0].name: '日' gives no key, add one"),
        (
            "scenario: x\naudiences:\n- {name: A b, query: q}\ntraits:\n- {name: a-b, query: q}\n",
            "a.yaml:5:3: traits[0]: the key 'a_b' is taken",
        ),
        ("scenario: x\naudiences:\n- {name: A, query: q, type: USER}\n", "found 'USER', expected ACCOUNTS or USERS"),
        ("scenario: x\nsettings: {idLimit: 3}\n", "a.yaml:2:21: settings.idLimit: there is no setting 'idLimit'"),
        ("scenario: x\nsteps:\n- at: +0s\n  fault: {}\n", "steps[0].fault: expected one of crash, crash_after,"),
        ("scenario: x\nsteps:\n- at: +0s\n  fault: {delay: {p: 2, by: 1h}}\n", "p is 2, expected a probability"),
        ("scenario: x\nsteps:\n- at: +0s\n  fault: {disk_full: long}\n", "found 'long', expected a duration"),
        (
            "scenario: x\nsteps:\n- at: +0s\n  fault: {destination: crm, status: 503}\n",
            "no destination 'crm'; there are: none",
        ),
        ("scenario: x\nsteps:\n- at: +0s\n  define: {}\n", "steps[0].define: expected either `audience` or `trait`"),
        ("scenario: x\nsteps:\n- at: +0s\n  expect: {members: {a: [u, u]}}\n", "members.a: 'u' is given twice"),
        ("scenario: x\nsteps:\n- at: +0s\n  expect: {at: +1d, rejected: 1}\n", "ask about members and traits only"),
        (
            "scenario: x\nsteps:\n- at: +0s\n  send: [{type: track, v: .nan}]\n",
            "found .nan, expected a number that JSON has",
        ),
        ("scenario: x\nsteps:\n- at: +0s\n  send: [{type: track, v: !!binary aGk=}]\n", "found a YAML binary"),
        ("scenario: x\nsteps:\n- at: +0s\n  send: [{type: track, writeKey: 5}]\n", "writeKey: expected text"),
    ],
)
def test_an_error_names_the_line_what_was_found_and_what_would_be_right(text: str, message: str) -> None:
    assert message in refusal(text)


def test_all_problems_are_told_at_once() -> None:
    lines = refusal("scenario: x\nsteps:\n- at: 1\n  foo: 1\n- bar: 1\n").splitlines()
    assert [line.split(": ")[0] for line in lines] == ["a.yaml:4:3", "a.yaml:5:3", "a.yaml:5:3"]


def test_aliases_that_multiply_are_refused() -> None:
    levels = "\n".join(f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9))
    text = f"scenario: x\nsteps:\n- at: +0s\nsettings:\n  l0: &l0 [1]\n{levels}\n"
    assert "more than 500000 values" in refusal(text)


def test_a_document_that_contains_itself_is_refused() -> None:
    assert "nested too deeply" in refusal("scenario: x\nsettings: &a {b: *a}\n")


def test_a_file_that_is_too_large_or_not_there_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(InvalidError, match="at most 4194304"):
        load(large)
    with pytest.raises(InvalidError, match="cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"scenario: caf\xe9")
    with pytest.raises(InvalidError, match="not UTF-8"):
        load(latin)


def test_plain_scalars_are_text_where_text_is_expected() -> None:
    assert loads("scenario: 5\n").scenario.scenario == "5"
    assert loads("scenario: no\n").scenario.scenario == "no"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_what_is_written_reads_back_the_same(path: Path) -> None:
    scenario = load(path).scenario
    assert loads(dumps(scenario, comment="again\nand again")).scenario == scenario


def test_random_worlds_read_back_the_same() -> None:
    for seed in range(20):
        scenario = with_answers(random_scenario(seed))
        assert loads(dumps(scenario)).scenario == scenario


def test_the_schema_for_editors_is_current() -> None:
    assert SCHEMA.read_bytes() == json_schema(), "write it anew: python -m scenarios.format"


def test_the_schema_takes_good_scenarios_and_no_misspelt_ones() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(json_schema()))
    for path in LIBRARY:
        assert list(validator.iter_errors(json.loads(msgspec.json.encode(load(path).scenario)))) == [], path.stem
    assert list(validator.iter_errors({"scenario": "x", "steps": [{"at": "+1d", "sned": []}]}))


def test_offsets_and_durations() -> None:
    assert offset_ms("+1w2d3h4m5s") == 604_800_000 + 2 * 86_400_000 + 3 * 3_600_000 + 4 * 60_000 + 5_000
    assert duration_ms("90m") == 5_400_000
    assert offset_text(0) == "+0s"
    for offset in (1_000, 60_000, 86_400_000, 129_600_000, 694_861_000):
        assert offset_ms(offset_text(offset)) == offset
    for wrong in ("1d", "+", "+1", "+1x", "+d", "+-1d", "+1.5d", "+1d "):
        with pytest.raises(ValueError, match="expected an offset"):
            offset_ms(wrong)
    with pytest.raises(ValueError, match="whole seconds"):
        offset_text(1)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Cart abandoners", "cart_abandoners"),
        ("Überraschung!", "uberraschung"),
        ("  a  B--c__d ", "a_b_c_d"),
        ("90 days", "90_days"),
        ("日本", ""),
        ("ﬁne print", "fine_print"),
    ],
)
def test_a_key_is_the_name_in_snake_case(name: str, key: str) -> None:
    assert key_of(AudienceSpec(name=name, query="q")) == key


def test_a_scenario_needs_nothing_but_a_title() -> None:
    assert loads("scenario: x\n").scenario == Scenario(scenario="x")


def test_what_stands_beside_a_yaml_merge_overrides_it() -> None:
    loaded = loads(
        "scenario: x\naudiences:\n  - &a {name: One, query: \"trait('a') = 1\"}\n"
        "  - &b {<<: *a, name: Two}\n  - {<<: *b, name: Three}\n"
    )
    assert [(one.name, one.query) for one in loaded.scenario.audiences] == [
        ("One", "trait('a') = 1"),
        ("Two", "trait('a') = 1"),
        ("Three", "trait('a') = 1"),
    ]
